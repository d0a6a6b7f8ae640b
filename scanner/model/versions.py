"""Chooses the version to upgrade to, if an advisory lists several.

An advisory has a fix for each release line (``2.3.5`` and ``3.0.1``): from 2.3.1 one upgrades to 2.3.5. A package with
several findings needs one version that has all fixes: the highest fix of one line may be too low for another finding
that was fixed later in that line. Versions are compared like dpkg does (deb-version(7)), which also orders those of
rpm, apk, PyPI, npm and Go well enough for advice. Pre-releases (``-rc1``, ``b2``) are lower than their release.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from scanner.patterns import lazy

_PRE_RELEASE = lazy(r"[-_.]?(?=(?:alpha|beta|rc|pre|dev|snapshot|a|b|c|m)[-_.]?\d*(?:$|[-_.+]))", re.IGNORECASE)
_PARTS = lazy(r"\d+|[^\d]+")
# Characters that are compared.
_LONGEST = 256


def _order(character: str) -> int:
    return -1 if character == "~" else ord(character) if character.isalpha() else ord(character) + 256


@lru_cache(4096)
def key(version: str) -> tuple[tuple[int, ...], ...]:
    """Return a sort key for a version."""
    text = version.strip()[:_LONGEST].removeprefix("v")
    epoch, colon, rest = text.partition(":")
    if not (colon and epoch.isascii() and epoch.isdigit()):
        epoch, rest = "0", text
    rest = _PRE_RELEASE.sub("~", rest, count=1)
    parts: list[tuple[int, ...]] = [(int(epoch),)]
    if not rest[:1].isdigit():
        rest = f"0{rest}"
    for part in _PARTS.findall(rest):
        # The end of a version sorts between "~" and everything else: 1.0~rc1 < 1.0 < 1.0.1.
        parts.append((1, int(part)) if part.isascii() and part.isdigit() else (0, *map(_order, part), 0))
    return (*parts, (0, 0))


def upgrade(installed: str, fixed: Sequence[str]) -> str:
    """The fix for an installed version: the lowest higher one, in the same release line if possible.

    Empty if there is none.
    """
    return common_upgrade(installed, [fixed])


def common_upgrade(installed: str, advisories: Iterable[Sequence[str]]) -> str:
    """The one version that has the fix of every advisory that names one: the lowest above ``installed``, in the same
    release line if there is one. Each of ``advisories`` is the fixes that one of them names.

    Empty: none names a fix.
    """
    needs = {tuple(fixed) for fixed in advisories if fixed}
    if not needs:
        return ""
    there = sorted({version for fixed in needs for version in fixed}, key=key)
    # Where an advisory names one version only, anything lower lacks its fix. That leaves few to compare.
    least = key(max((fixed[0] for fixed in needs if len(fixed) == 1), key=key, default=there[0]))
    higher = [v for v in there if key(v) > key(installed)] or there[-1:]
    possible = [v for v in higher if key(v) >= least] or there[-1:]
    lines = [fixed for fixed in needs if len(fixed) > 1]
    for parts in (2, 1, 0):
        line = _line(installed, parts)
        for version in possible:
            if _line(version, parts) == line and all(_has_fix(version, fixed) for fixed in lines):
                return version
    return there[-1]


def _has_fix(version: str, fixed: Sequence[str]) -> bool:
    """Whether a version has a fix that came with each of ``fixed``, one in each release line."""
    same = [v for v in fixed if _line(v, 2) == _line(version, 2)]
    if same:
        return any(key(v) <= key(version) for v in same)
    same = [v for v in fixed if _line(v, 1) == _line(version, 1)]
    return all(key(v) <= key(version) for v in same or fixed)


def highest(versions: Iterable[str]) -> str:
    """The highest version, which includes the fixes of the others."""
    return max(versions, key=key, default="")


@lru_cache(4096)
def _line(version: str, parts: int) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", version.rpartition(":")[2])[:parts])
