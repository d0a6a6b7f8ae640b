"""Forms over the use cases that the API calls too: one way to do a thing, one way to refuse it; a page says it in
words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, TypeVar

from scanner.errors import Fault, ScannerError, UsageError
from scanner.model.pem import holds_private_key

T = TypeVar("T")


class Refused(Exception):
    """What was typed cannot be taken.

    ``problems`` are for the person, a sentence each; ``fields`` are those to mark.
    """

    def __init__(self, problems: Iterable[str], fields: Iterable[str] = ()) -> None:
        self.problems, self.fields = list(problems), frozenset(fields) - {""}
        super().__init__("; ".join(self.problems))


def attempt(work: Callable[[], T]) -> T:
    """Do it. Raises Refused for what the caller can mend; whatever else went wrong is an error page's to show."""
    try:
        return work()
    except ScannerError as error:
        if error.fault is not Fault.CALLER:
            raise
        raise Refused([f"{error}" + (f" ({error.hint})" if error.hint else "")], [error.field]) from None


def showable(kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a person typed, for the form that is shown again; without a private key that was pasted by mistake."""
    return {name: value for name, value in (kept or {}).items() if not holds_private_key(value)}


def whole_number(text: str) -> int:
    """The number that a field holds; 0 for what is none, which no field accepts."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def end_of_day(text: str, field: str) -> datetime:
    """The last second of a day as a date field gives it, in UTC. Raises UsageError."""
    try:
        return datetime.combine(date.fromisoformat(text), time(23, 59, 59), UTC)
    except ValueError:
        raise UsageError(f"not a day: {text[:40]!r}", reason="invalid", hint="write 2026-11-25", field=field) from None
