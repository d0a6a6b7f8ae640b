"""Which policies are in force for an image: globs over ``host/repository``, and environments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from scanner.policy.rules import Policy


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


def applies(policy: Policy, repository: str, environment: str) -> bool:
    """A policy without environments is for all of them. An image without a name is matched by ``**`` only."""
    if policy.environments and environment not in policy.environments:
        return False
    return matches(policy.images, repository)


def select(policies: Iterable[Policy], repository: str, environment: str, fallback: Policy) -> list[Policy]:
    """The policies in force, by name; ``fallback`` where there is none."""
    chosen = sorted((p for p in policies if applies(p, repository, environment)), key=lambda p: p.name)
    return chosen or [fallback]
