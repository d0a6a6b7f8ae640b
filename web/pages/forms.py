"""Forms call the same use cases as the API, so rules and errors are the same; the page shows the errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, TypeVar

from flask import Response, make_response, redirect
from sqlalchemy.engine import Connection

from scanner.errors import Fault, ScannerError, UsageError
from scanner.model.pem import holds_private_key
from web.errors import status_of
from web.resources import resources

T = TypeVar("T")


class RefusedForm(Exception):
    """A refused form. ``problems``: sentences for the user. ``fields``: the form fields to mark. ``status``: what the
    API answers to the same error.
    """

    def __init__(self, problems: Iterable[str], fields: Iterable[str] = (), status: int = 422) -> None:
        self.problems, self.fields, self.status = list(problems), frozenset(fields) - {""}, status
        super().__init__("; ".join(self.problems))


def attempt(work: Callable[[], T]) -> T:
    """Run the use case. Raises Refused for errors that the user can fix. Other errors become an error page."""
    try:
        return work()
    except ScannerError as error:
        if error.fault is not Fault.CALLER:
            raise
        problem = f"{error}" + (f" ({error.hint})" if error.hint else "")
        raise RefusedForm([problem], [error.field], status_of(error)) from None


def carry_out(work: Callable[[Connection], object], again: Callable[[RefusedForm], str], target: str) -> Response:
    """Run the use case in a transaction and go to ``target``. If it is refused, answer with what ``again`` shows."""

    def transact() -> None:
        with resources().database.session() as session:
            work(session)

    try:
        attempt(transact)
    except RefusedForm as refused:
        return make_response(again(refused), 422)
    return redirect(target, 303)  # type: ignore[return-value]


def showable(kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the typed text for the form that is shown again, without a pasted private key."""
    return {name: value for name, value in (kept or {}).items() if not holds_private_key(value)}


def plain_lines(text: str) -> str:
    """Return the text of a text area as it was typed: browsers send each line break as two characters, which would
    count twice where the length is limited.
    """
    return text.replace("\r\n", "\n").strip()


def whole_number(text: str) -> int:
    """Parse a number. Returns 0 if the text is not a number; no field accepts 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def end_of_day(text: str, field: str) -> datetime:
    """Parse a date field as the last second of that day in UTC. Raises UsageError."""
    try:
        return datetime.combine(date.fromisoformat(text), time(23, 59, 59), UTC)
    except ValueError:
        raise UsageError(f"{text[:40]!r} is not a date", reason="invalid", hint="use YYYY-MM-DD", field=field) from None
