"""Reading an engine's answer: every member is of the type we know it by, or the whole answer is not to be believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from scanner.errors import EngineError
from scanner.model.finding import Severity
from scanner.model.untrusted import clean_text

T = TypeVar("T")


def as_text(value: object, limit: int) -> str:
    """Words, made safe to show; of another type: none."""
    return clean_text(value, limit) if isinstance(value, str) else ""


def as_link(value: object, limit: int) -> str:
    """Only http and https: a page makes links of these."""
    text = as_text(value, limit)
    return text if text.startswith(("https://", "http://")) else ""


def as_dict(value: object, engine: str) -> Mapping[str, Any]:
    """An object; none where it is absent. Raises EngineError(reason="scanner_output_invalid") for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _unreadable(engine)
    return value


def as_list(value: object, engine: str) -> list[Any]:
    """As `as_dict`, of a list."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _unreadable(engine)
    return value


def as_severity(value: object, names: Mapping[str, Severity]) -> Severity:
    """The severity that an engine's own word means.

    Every other text, another spelling, another type and none at all are unknown, which policies count as critical:
    an engine that says nothing has not said that a vulnerability is harmless.
    """
    return names.get(value, Severity.UNKNOWN) if isinstance(value, str) else Severity.UNKNOWN


def as_exact_text(value: object, limit: int, engine: str) -> str:
    """As `as_text`, of a member whose absence means something: another type than text is no absence, and raises
    EngineError.
    """
    if value is not None and not isinstance(value, str):
        raise _unreadable(engine)
    return as_text(value, limit)


def as_score(value: object, engine: str) -> float | None:
    """A CVSS score; None where it is absent.

    Raises EngineError for what is no number from 0 to 10: left out, a high score would be lost.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        raise _unreadable(engine)
    return float(value)


def at_most(items: Iterable[T], limit: int, what: str, engine: str) -> Iterator[T]:
    """The items, counted.

    Raises EngineError(reason="limit_exceeded") for one more than ``limit``: a short report can list the same
    vulnerability for the same package a million times over.
    """
    for number, item in enumerate(items, 1):
        if number > limit:
            raise EngineError(f"{engine}'s report has more than {limit} {what}", reason="limit_exceeded")
        yield item


def _unreadable(engine: str) -> EngineError:
    return EngineError(f"{engine}'s report is not of its schema", reason="scanner_output_invalid")
