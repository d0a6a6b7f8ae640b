"""Validation of request fields.

The OpenAPI document quotes the same patterns and lengths. Pages and commands have no other validation.
Every function raises UsageError(reason="invalid") with the field's name, so that a form can mark the field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from scanner.errors import UsageError
from scanner.model import glob

NAME = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
# Characters, as in the schema.
NAME_LENGTH = 64


def invalid(field: str, message: str, hint: str = "") -> UsageError:
    return UsageError(message, reason="invalid", hint=hint, field=field)


def text(field: str, value: str, longest: int, *, shortest: int = 0, lines: bool = False) -> str:
    """Return ``value`` if it is printable text of the given length. ``lines``: tabs and line breaks are allowed."""
    if not shortest <= len(value) <= longest:
        raise invalid(field, f"{_label(field)} has {shortest} to {longest} characters")
    allowed = "\t\n\r" if lines else ""
    # C0 and C1 controls can forge log lines and terminal output. PostgreSQL stores no lone surrogates.
    if any((c < " " and c not in allowed) or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in value):
        raise invalid(field, f"{_label(field)} must not contain control characters")
    return value


def check_pattern(field: str, value: str, pattern: str, longest: int, hint: str = "") -> str:
    """Return ``value`` if ``pattern`` matches all of it. ASCII only, so that lookalike letters are rejected."""
    if len(value) > longest or not re.fullmatch(pattern, value, re.ASCII):
        raise invalid(field, f"{_label(field)} cannot be {value[:100]!r}", hint)
    return value


def pattern_of_names(field: str, value: str, allowed: str, longest: int) -> str:
    """Return a glob over ``host/repository``. Its length and wildcards are limited, so that it cannot match slowly."""
    check_pattern(field, value, allowed, longest, "write host/repository, such as registry.example.com/shop/**")
    if wrong := glob.problem(value):
        raise invalid(field, f"{_label(field)} cannot be {value[:100]!r}: {wrong}")
    return value


def at_most(field: str, values: Sequence[str], most: int, *, least: int = 0) -> Sequence[str]:
    if not least <= len(values) <= most:
        raise invalid(field, f"{_label(field)} has {least} to {most} entries")
    return values


def _label(field: str) -> str:
    return field.replace("_", " ")
