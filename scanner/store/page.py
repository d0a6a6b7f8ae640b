"""Pages of long lists by keyset: the cursor says after which row to go on, so page 4,000 costs what page 1 does."""

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
    """Rows, and the cursor of the next page; None: this was the last."""

    items: tuple[T, ...]
    next_cursor: str | None = None


def encode_cursor(*values: float | str) -> str:
    """The place of a row, as text that goes into a URL."""
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def decode_cursor(text: str, kinds: Sequence[Callable[[Any], Any]]) -> tuple[Any, ...]:
    """Raises UsageError for anything that ``encode_cursor`` did not make."""
    try:
        values = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError(text)
        return tuple(kind(value) for kind, value in zip(kinds, values, strict=True))
    except (binascii.Error, ValueError, TypeError) as error:
        raise UsageError("not a cursor of this list", reason="bad_cursor", hint="start again without cursor") from error
