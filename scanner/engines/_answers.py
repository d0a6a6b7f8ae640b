"""Helpers to read an engine's report: a member of an unexpected type makes the whole report invalid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from scanner.errors import EngineError
from scanner.model.finding import Severity
from scanner.model.untrusted import clean_text

T = TypeVar("T")


def as_text(value: object, limit: int) -> str:
    """Return a text, made safe to show, of at most ``limit`` characters. Empty for other types."""
    return clean_text(value, limit) if isinstance(value, str) else ""


def as_link(value: object, limit: int) -> str:
    """Return an http or https URL, because pages show it as a link. Empty for anything else."""
    text = as_text(value, limit)
    return text if text.startswith(("https://", "http://")) else ""


def as_dict(value: object, engine: str) -> Mapping[str, Any]:
    """Return an object; empty if it is absent. Raises EngineError(reason="scanner_output_invalid") for other types."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _unreadable(engine)
    return value


def as_list(value: object, engine: str) -> list[Any]:
    """Return a list, like ``as_dict``."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _unreadable(engine)
    return value


def as_severity(value: object, names: Mapping[str, Severity]) -> Severity:
    """Translate an engine's severity.

    Other texts, spellings and types, and a missing value, are unknown, which policies count as critical: an engine that
    states no severity has not stated that a vulnerability is harmless.
    """
    return names.get(value, Severity.UNKNOWN) if isinstance(value, str) else Severity.UNKNOWN


def as_exact_text(value: object, limit: int, engine: str) -> str:
    """Return a text like ``as_text``, for a member whose absence has a meaning: other types raise EngineError
    instead of being treated as absent.
    """
    if value is not None and not isinstance(value, str):
        raise _unreadable(engine)
    return as_text(value, limit)


def as_score(value: object, engine: str) -> float | None:
    """Return a CVSS score; None if it is absent.

    Raises EngineError if it is not a number from 0 to 10: dropping it could lose a high score.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        raise _unreadable(engine)
    return float(value)


def at_most(items: Iterable[T], limit: int, what: str, engine: str) -> Iterator[T]:
    """Yield the items.

    Raises EngineError(reason="limit_exceeded") after ``limit`` of them: a short report can repeat one vulnerability
    of one package a million times.
    """
    for number, item in enumerate(items, 1):
        if number > limit:
            raise EngineError(f"{engine}'s report has more than {limit} {what}", reason="limit_exceeded")
        yield item


def _unreadable(engine: str) -> EngineError:
    return EngineError(f"{engine}'s report does not follow its schema", reason="scanner_output_invalid")
