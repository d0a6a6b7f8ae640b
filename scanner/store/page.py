"""Keyset pagination: a cursor contains the key of the last row, so every page costs the same."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import orjson

from scanner.errors import UsageError

T = TypeVar("T")

_MOST = 2**63 - 1  # the largest INTEGER of SQLite


@dataclass(frozen=True)
class Page(Generic[T]):
    """Rows and the cursor of the next page. None: this is the last page."""

    items: tuple[T, ...]
    next_cursor: str | None = None


def encode_cursor(*values: float | str) -> str:
    """Return the key of a row as URL-safe text."""
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decode_cursor(text: str, kinds: Sequence[Callable[[Any], Any]]) -> tuple[Any, ...]:
    """Return the values of a cursor, converted by ``kinds``. Raises UsageError(reason="bad_cursor").

    Cursors are not signed: they only select rows, and every query is limited to the caller's projects. But a client can
    write one, so a value that a database would refuse is refused here: it would be an internal error there.
    """
    try:
        values = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError(text)
        return tuple(_storable(kind(value)) for kind, value in zip(kinds, values, strict=True))
    except (binascii.Error, ValueError, TypeError, OverflowError) as error:
        raise UsageError("invalid cursor", reason="bad_cursor", hint="start again without a cursor") from error


def cursor_moment(value: Any) -> datetime:
    """A kind of ``decode_cursor``: a moment with its time zone."""
    found = datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise ValueError(value)
    return found.astimezone(UTC)


def _storable(value: Any) -> Any:
    """Return the value. Raises ValueError for one that SQLite or PostgreSQL cannot take as a parameter."""
    if isinstance(value, int) and not -_MOST <= value <= _MOST:
        raise ValueError(value)
    if isinstance(value, str) and "\0" in value:  # orjson has refused lone surrogates
        raise ValueError(value)
    return value
