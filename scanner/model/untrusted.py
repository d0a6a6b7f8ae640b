"""A JSON loader for untrusted input: bounded in size, depth and numbers, and unambiguous.

Used for registry answers, webhooks, API bodies and engine reports. Refused are duplicate keys (RFC 8259 section 4:
parsers differ in which one they take), NaN and Infinity (not JSON), and lone surrogates (no UTF-8 form).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from scanner.errors import ImageError, ScannerError
from scanner.patterns import lazy

T = TypeVar("T")
_MAX_DIGITS = 40  # digits of a number: converting a text to a number takes quadratic time
# A quote always matches, even unterminated, and possessively: the time is linear for any document.
_BRACKETS = lazy(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
# What Python and OpenSSL put around a message means nothing to users.
_PYTHONS_OWN = lazy(r"\[Errno -?\d+\] |\[SSL: \w+\] |certificate verify failed: | \(_ssl\.c:\d+\)")
# Control, format, surrogate and private characters: they can hide or reorder text ("Trojan Source").
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# Half surrogates: no UTF-8 has them, and databases refuse them.
_HALF = lazy("[\ud800-\udfff]")
# JSON can write a half surrogate as an escape.
_SURROGATE = lazy(rb"\\u[dD][89a-fA-F]")


class _DocumentRefused(ValueError):
    """A refused document. The caller's error class is applied later."""


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        raise _DocumentRefused("a JSON object has a member twice")
    return found


def _constant(name: str) -> Any:
    raise _DocumentRefused(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _DocumentRefused(f"a JSON number is longer than {_MAX_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _DocumentRefused("a JSON number is too large")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_integer, parse_float=_number)


def load_untrusted_json(
    data: bytes,
    *,
    limit: int = 4 << 20,
    depth: int = 64,
    error: type[ScannerError] = ImageError,
    reason: str | None = None,
    mend_text: bool = False,
) -> Any:
    """Parse a JSON document. Raises ``error(reason=reason)`` with one sentence if it is invalid.

    ``limit``: bytes. ``depth``: nesting, checked before parsing, so that no input can exhaust the stack. ``mend_text``:
    replace half a surrogate pair by U+FFFD, as Go does, instead of raising: for documents that runtimes read that way.
    """
    try:
        return _load(data, limit, depth, mend_text)
    except _DocumentRefused as cause:
        raise error(str(cause), reason=reason) from cause


def _load(data: bytes, limit: int, depth: int, mend_text: bool) -> Any:
    if len(data) > limit:
        raise _DocumentRefused(f"the JSON document is larger than {limit} bytes")
    if _depth(data, depth) > depth:
        raise _DocumentRefused(f"the JSON document is nested deeper than {depth}")
    try:
        text = data.decode("utf-8")
        if text.startswith("\ufeff"):
            raise _DocumentRefused("the JSON document begins with a byte order mark")
        value = _DECODER.decode(text)
        if _SURROGATE.search(data) and mend_text:
            return _without_lone_surrogates(value)
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as cause:
        raise _DocumentRefused("the JSON document is not UTF-8") from cause
    except UnicodeEncodeError as cause:
        raise _DocumentRefused("a JSON string contains half a surrogate pair") from cause
    except json.JSONDecodeError as cause:
        raise _DocumentRefused(f"not JSON: {cause.msg} at line {cause.lineno}, column {cause.colno}") from cause
    return value


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return _pairs(
            [(_without_lone_surrogates(name), _without_lone_surrogates(item)) for name, item in value.items()]
        )
    return value


def _depth(data: bytes, enough: int) -> int:
    """The deepest nesting of brackets outside strings. Stops counting beyond ``enough``."""
    if data.count(b"[") + data.count(b"{") <= enough:
        return 0
    deepest = current = 0
    for match in _BRACKETS.finditer(data):
        token = data[match.start()]
        if token in b"[{":
            current += 1
            if current > deepest:
                deepest = current
                if deepest > enough:
                    return deepest
        elif token in b"]}":
            current -= 1
    return deepest


def nesting_depth(data: bytes) -> int:
    """The deepest nesting of brackets, also inside strings.

    Checked before a YAML parser runs, because its time grows with the square of the depth.
    """
    deepest = current = 0
    for byte in data:
        if byte in b"[{":
            current += 1
            deepest = max(deepest, current)
        elif byte in b"]}" and current:  # surplus closing brackets are harmless
            current -= 1
    return deepest


# Characters that make a spreadsheet evaluate a cell (OWASP, CSV injection), also after quotes or white space.
_FORMULA = ("=", "+", "-", "@", "|", "%", "\t", "\r", "\n")


def spreadsheet_text(text: str) -> str:
    """Return ``text`` for a CSV cell. A text that a spreadsheet would evaluate gets an apostrophe in front."""
    return f"'{text}" if text.lstrip(" \"'\N{REPLACEMENT CHARACTER}").startswith(_FORMULA) else text


def network_reason(error: BaseException) -> str:
    """Why a connection failed, for a person: without numbers and places in the source of Python."""
    return clean_text(_PYTHONS_OWN.sub("", str(error)), 200) or type(error).__name__


def clean_text(text: str, limit: int = 1000) -> str:
    """Return foreign text as one line that is safe for a terminal and a log: control, format and bidirectional
    characters become U+FFFD.

    Cut to ``limit`` characters with an ellipsis. Escaping for HTML or CSV is done by the renderer in addition.
    """
    shown = text[: limit + 1]
    # isprintable() is false for all of these categories, and thirty times as fast as checking each character.
    if not shown.isprintable():
        import unicodedata

        shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _INVISIBLE else c for c in shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def escaped(value: T) -> T:
    r"""Return the same value (text, tuple, mapping, dataclass, nested) with characters without a UTF-8 form escaped.

    File names in a layer can be any bytes. In memory, a byte that is not UTF-8 is half a surrogate pair (PEP 383), so
    that names can be compared and converted back. A report, a database and a page cannot hold such characters, so they
    are written as ``\xff``. This is done once, when evidence leaves the scan.
    """
    return cast("T", _escaped(value))


def _escaped(value: object) -> object:
    if isinstance(value, str):
        return _HALF.sub(_escape, value) if type(value) is str and not value.isascii() else value
    if isinstance(value, tuple):
        items: list[Any] = [_escaped(item) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {
            item.name: new
            for item in dataclasses.fields(value)
            if item.init and (new := _escaped(old := getattr(value, item.name))) is not old
        }
        return dataclasses.replace(value, **changed) if changed else value
    if isinstance(value, Mapping):
        changed_items = {_escaped(name): _escaped(item) for name, item in value.items()}
        return value if changed_items == value else changed_items
    return value


def _escape(half: re.Match[str]) -> str:
    code = ord(half[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
