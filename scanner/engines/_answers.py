"""Reading an engine's answer: every member is of the type we know it by, or the whole answer is not to be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scanner.errors import EngineError
from scanner.model.untrusted import clean_text


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


def _unreadable(engine: str) -> EngineError:
    return EngineError(f"{engine}'s report is not of its schema", reason="scanner_output_invalid")
