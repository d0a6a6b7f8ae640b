"""What the fields of a request may hold.

The API's document quotes the same patterns and lengths; a page and a command rely on these.

Every check raises UsageError(reason="invalid") with the field's name, so that a form can mark it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scanner.errors import UsageError
from scanner.model import glob

NAME = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
NAME_LENGTH = 64


def invalid(field: str, message: str, hint: str = "") -> UsageError:
    return UsageError(message, reason="invalid", hint=hint, field=field)


def text(field: str, value: str, longest: int, *, shortest: int = 0, lines: bool = False) -> str:
    """Printable text, with line breaks if ``lines``: what a database, a log and a page can all hold."""
    if not shortest <= len(value) <= longest:
        raise invalid(field, f"{_label(field)} has {shortest} to {longest} characters")
    allowed = "\t\n\r" if lines else ""
    if any((c < " " and c not in allowed) or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in value):
        raise invalid(field, f"{_label(field)} must not hold control characters")
    return value


def matching(field: str, value: str, pattern: str, longest: int, hint: str = "") -> str:
    """Text that matches ``pattern`` from its first to its last character."""
    if len(value) > longest or not re.fullmatch(pattern, value, re.ASCII):
        raise invalid(field, f"{_label(field)} cannot be {value[:100]!r}", hint)
    return value


def pattern_of_names(field: str, value: str, allowed: str, longest: int) -> str:
    """A glob over ``host/repository``, bounded so that it is matched in no time."""
    matching(field, value, allowed, longest, "write host/repository, such as registry.example.com/shop/**")
    if wrong := glob.problem(value):
        raise invalid(field, f"{_label(field)} cannot be {value[:100]!r}: {wrong}")
    return value


def at_most(field: str, values: Sequence[str], most: int, *, least: int = 0) -> Sequence[str]:
    if not least <= len(values) <= most:
        raise invalid(field, f"{_label(field)}: name {least} to {most}")
    return values


def _label(field: str) -> str:
    return field.replace("_", " ")
