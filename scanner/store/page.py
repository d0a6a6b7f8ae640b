"""Keyset pagination: a cursor contains the key of the last row, so every page costs the same."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson

from scanner.errors import UsageError

T = TypeVar("T")


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

    Cursors are not signed: they only select rows, and every query is limited to the caller's projects.
    """
    try:
        values = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError(text)
        return tuple(kind(value) for kind, value in zip(kinds, values, strict=True))
    except (binascii.Error, ValueError, TypeError) as error:
        raise UsageError("invalid cursor", reason="bad_cursor", hint="start again without a cursor") from error
