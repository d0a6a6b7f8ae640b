"""Interpolation of Compose files: ``$VAR``, ``${VAR:-default}`` and the other operators.

https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from scanner.patterns import lazy

# compose-go, template: names of variables.
_NAME = lazy(r"[_a-zA-Z][_a-zA-Z0-9]*")
_NEEDED = lazy(r"(?<!\$)\$\{([_a-zA-Z][_a-zA-Z0-9]*)(:?)\?")
# Nested variables can multiply in length with each level, like the "billion laughs" attack.
_MAX_LENGTH = 1 << 20
_MAX_DEPTH = 20  # nested ${A:-${B:-…}}: no person writes more


class InterpolationError(ValueError):
    """A malformed expression. The message is a sentence."""


def needed_variable(text: str, variables: Mapping[str, str]) -> str:
    """Return the first unset variable that ``${VAR:?message}`` or ``${VAR?message}`` needs. Empty: there is none."""
    for found in _NEEDED.finditer(text):
        value = variables.get(found[1])
        if value is None or (found[2] and not value):
            return found[1]
    return ""


def interpolate(text: str, variables: Mapping[str, str], *, depth: int = 0) -> str:
    """Return the text with values of variables. Unset variables are empty, as in Compose.

    ``${VAR:?message}`` is also empty instead of an error, so that an audit does not need the host's secrets. Raises
    InterpolationError for a malformed expression.
    """
    if "$" not in text:
        return text
    if depth > _MAX_DEPTH:
        raise InterpolationError("defaults are nested too deeply")
    found: list[str] = []
    size = at = 0
    while at < len(text):
        dollar = text.find("$", at)
        piece = text[at:] if dollar < 0 else text[at:dollar]
        at = len(text) if dollar < 0 else dollar
        if dollar >= 0:
            value, at = _expression(text, dollar, variables, depth)
            piece += value
        found.append(piece)
        size += len(piece)
        if size > _MAX_LENGTH:
            raise InterpolationError("the interpolated text exceeds 1 MiB")
    return "".join(found)


def _expression(text: str, dollar: int, variables: Mapping[str, str], depth: int) -> tuple[str, int]:
    """Return the value of the expression at ``dollar``, and the position after it."""
    after = text[dollar + 1 : dollar + 2]
    if after == "$":
        return "$", dollar + 2
    if after == "{":
        end = _closing_brace(text, dollar + 2)
        return _braced_value(text[dollar + 2 : end], variables, depth), end + 1
    name = _NAME.match(text, dollar + 1)
    if name is None:
        raise InterpolationError(f"{text[dollar : dollar + 10]!r} is not a variable (write $$ for a dollar sign)")
    return variables.get(name[0], ""), name.end()


def _closing_brace(text: str, start: int) -> int:
    level, at = 1, start
    while at < len(text):
        if text.startswith("${", at):
            level, at = level + 1, at + 2
            continue
        if text[at] == "}":
            level -= 1
            if not level:
                return at
        at += 1
    raise InterpolationError("a ${ has no closing brace")


def _braced_value(inside: str, variables: Mapping[str, str], depth: int) -> str:
    name = _NAME.match(inside)
    if name is None:
        raise InterpolationError(f"'${{{inside[:40]}}}' contains no variable")
    value, rest = variables.get(name[0]), inside[name.end() :]
    if not rest:
        return value or ""
    colon = rest.startswith(":")
    operator, word = rest[colon : colon + 1], rest[colon + 1 :]
    present = bool(value) if colon else value is not None
    if operator == "-":
        return (value or "") if present else interpolate(word, variables, depth=depth + 1)
    if operator == "+":
        return interpolate(word, variables, depth=depth + 1) if present else ""
    if operator == "?":
        return value or ""
    raise InterpolationError(f"'${{{inside[:40]}}}' is not a Compose expression")


def env_file(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a ``.env`` file or ``env_file``: ``NAME=value`` lines with comments and quotes.

    https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        stripped = line.strip().removeprefix("export ").strip()
        name, equals, value = stripped.partition("=")
        if not stripped or stripped.startswith("#") or not equals or not _NAME.fullmatch(name.strip()):
            continue
        value = value.strip()
        # Single quotes: the value is literal, without variables.
        if value[:1] == "'" and "'" in value[1:]:
            found[name.strip()] = value[1 : value.index("'", 1)]
            continue
        if value[:1] == '"' and '"' in value[1:]:
            value = value[1 : value.index('"', 1)]
        else:
            value = re.split(r"\s#", value, maxsplit=1)[0].rstrip()
        try:
            # A later line may use the variables of earlier ones.
            found[name.strip()] = interpolate(value, {**variables, **found})
        # A password may contain a dollar sign that is no variable. The value is kept as it is written, as a shell's
        # file would have it.
        except InterpolationError:
            found[name.strip()] = value
    return found
