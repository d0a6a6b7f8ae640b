"""Patterns that people write: over ``host/repository`` (policies, projects, exemptions, trust roots), and over
paths, names and packages.

A pattern is a stranger's too: whoever may read policies may try one. So RE2 matches it, in time that grows with the
name and not with the number of ways to match, and ``problem`` says why one is refused when it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import re2

LONGEST, MOST_WILDCARDS = 500, 32
_WILDCARDS = re.compile(r"(?:\*+/?)+|\?")
_NOTHING = r"[^\x00-\x{10FFFF}]"


def problem(pattern: str) -> str:
    """Why this pattern is refused; empty: it is not."""
    if not pattern or not pattern.isprintable():
        return "a pattern is printable text, and not empty"
    if len(pattern) > LONGEST:
        return f"a pattern has at most {LONGEST} characters"
    if len(_WILDCARDS.findall(pattern)) > MOST_WILDCARDS:
        return f"a pattern has at most {MOST_WILDCARDS} wildcards"
    return ""


@lru_cache(maxsize=1024)
def glob(pattern: str) -> Any:
    """``*`` is anything within one part of a path, ``**`` any number of parts."""
    # Neighbours mean no more than one of them, and each would multiply the ways to match.
    pattern = re.sub(r"\*{3,}", "**", re.sub(r"(?:\*\*/){2,}", "**/", re.sub(r"\*{3,}", "**", pattern)))
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    known = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*"}
    return _compiled("".join(known.get(part) or re2.escape(part) for part in parts))


@lru_cache(maxsize=4096)
def _text_glob(pattern: str) -> Any:
    parts = re.split(r"(\*+|\?|\[!?\]?[^\]]*\])", pattern)
    return _compiled("".join(map(_text_part, parts)))


def _text_part(part: str) -> str:
    if part.startswith("*"):
        return ".*"
    if part == "?":
        return "."
    if part.startswith("[") and part.endswith("]") and len(part) > 2:
        inside = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside.replace('^', chr(92) + '^')}]"
    return str(re2.escape(part))


def _compiled(expression: str) -> Any:
    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error:  # a pattern beyond every bound, stored before there were any: it matches nothing
        return re2.compile(_NOTHING, options)


def matches(patterns: Iterable[str], name: str) -> bool:
    """Whether one of these patterns over ``host/repository`` matches the whole name."""
    return any(glob(pattern).fullmatch(name) is not None for pattern in patterns)


def matches_text(pattern: str, text: str) -> bool:
    """Whether a pattern over any text matches all of it: as ``fnmatch``, ``*`` crosses slashes."""
    return _text_glob(pattern).fullmatch(text.encode("utf-8", "replace").decode()) is not None


def most_specific(patterns: Iterable[str], name: str) -> str | None:
    """The pattern that matches ``name`` with the most literal characters; None when none does."""
    fitting = [pattern for pattern in patterns if glob(pattern).fullmatch(name) is not None]
    return max(fitting, key=lambda pattern: (len(pattern.replace("*", "")), pattern), default=None)
