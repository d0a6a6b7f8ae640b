"""Patterns over ``host/repository``: what policies, projects and exemptions are about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=1024)
def glob(pattern: str) -> re.Pattern[str]:
    """``*`` is anything within one part of a path, ``**`` any number of parts."""
    out, position = "", 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            out, position = out + "(?:[^/]+/)*", position + 3
        elif pattern.startswith("**", position):
            out, position = out + ".*", position + 2
        elif pattern[position] == "*":
            out, position = out + "[^/]*", position + 1
        else:
            out, position = out + re.escape(pattern[position]), position + 1
    return re.compile(out, re.DOTALL)


def matches(patterns: Iterable[str], name: str) -> bool:
    return any(glob(pattern).fullmatch(name) for pattern in patterns)


def most_specific(patterns: Iterable[str], name: str) -> str | None:
    """The pattern that matches ``name`` with the most literal characters; None when none does."""
    fitting = [pattern for pattern in patterns if glob(pattern).fullmatch(name)]
    return max(fitting, key=lambda pattern: (len(pattern.replace("*", "")), pattern), default=None)
