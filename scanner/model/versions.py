"""Which version to upgrade to: one, whatever an advisory lists.

An advisory names a fix for each release line (``2.3.5`` and ``3.0.1``). Who runs 2.3.1 upgrades to 2.3.5, and to the
highest of what the package's findings need. Versions are compared as dpkg does (deb-version(7)), which also orders
those of rpm, apk, PyPI, npm and Go as far as advice needs; what is before a release (``-rc1``, ``b2``) is smaller
than it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_PRE_RELEASE = re.compile(r"[-_.]?(?=(?:alpha|beta|rc|pre|dev|snapshot|a|b|c|m)[-_.]?\d*(?:$|[-_.+]))", re.IGNORECASE)
_PARTS = re.compile(r"\d+|[^\d]+")
_LONGEST = 256


def _order(character: str) -> int:
    return -1 if character == "~" else ord(character) if character.isalpha() else ord(character) + 256


def key(version: str) -> tuple[tuple[int, ...], ...]:
    """A key to sort versions by."""
    text = version.strip()[:_LONGEST].removeprefix("v")
    epoch, colon, rest = text.partition(":")
    if not (colon and epoch.isascii() and epoch.isdigit()):
        epoch, rest = "0", text
    rest = _PRE_RELEASE.sub("~", rest, count=1)
    parts: list[tuple[int, ...]] = [(int(epoch),)]
    if not rest[:1].isdigit():
        rest = f"0{rest}"
    for part in _PARTS.findall(rest):
        # The end of a version stands between "~" and everything else: 1.0~rc1 < 1.0 < 1.0.1.
        parts.append((1, int(part)) if part.isascii() and part.isdigit() else (0, *map(_order, part), 0))
    return (*parts, (0, 0))


def upgrade(installed: str, fixed: Sequence[str]) -> str:
    """The fix for whoever has ``installed``: the lowest above it, in the same release line if there is one.

    Empty: there is no fix.
    """
    if not fixed:
        return ""
    higher = sorted((v for v in fixed if key(v) > key(installed)), key=key) or sorted(fixed, key=key)[-1:]
    for parts in (2, 1):
        line = _line(installed, parts)
        for version in higher:
            if _line(version, parts) == line:
                return version
    return higher[0]


def highest(versions: Iterable[str]) -> str:
    """The highest of these versions: the one that fixes what each of them fixes."""
    return max(versions, key=key, default="")


def _line(version: str, parts: int) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", version.rpartition(":")[2])[:parts])
