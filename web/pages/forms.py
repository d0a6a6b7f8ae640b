"""Forms over the API's own operations: one way to do a thing, one way to refuse it; a page only says it in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import Response
from pydantic import ValidationError

from scanner.errors import Fault, ScannerError

T = TypeVar("T")


class Refused(Exception):
    """What was typed cannot be taken. ``problems`` are for the person, a sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def attempt(work: Callable[[], T]) -> T:
    """Do it. Raises Refused for what the caller can mend; whatever else went wrong is an error page's to show."""
    try:
        return work()
    except ValidationError as error:
        places = (
            (" ".join(str(part) for part in e["loc"]), str(e["msg"]).removeprefix("Value error, "))
            for e in error.errors(include_url=False, include_input=False)
        )
        raise Refused([f"{place}: {message}" for place, message in places]) from None
    except ScannerError as error:
        if error.fault is not Fault.CALLER:
            raise
        raise Refused([f"{error}" + (f" ({error.hint})" if error.hint else "")]) from None


def document(answer: Response) -> dict[str, object]:
    """What an operation of the API answered."""
    found: dict[str, object] = answer.get_json()
    return found
