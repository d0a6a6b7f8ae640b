"""Glob patterns: over ``host/repository`` (policies, projects, exemptions, trust roots), and over paths, names and
packages.

Untrusted users may try patterns as well, so RE2 matches them in linear time, and ``problem`` refuses excessive ones
when they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from scanner.patterns import lazy

LONGEST, MOST_WILDCARDS = 500, 32  # characters, and asterisks: a pattern with many would take long on a hostile name
# Other names of Docker Hub: ``Reference.parse`` writes the short one.
_HUB = {"index.docker.io": "docker.io", "registry-1.docker.io": "docker.io"}
_WILDCARDS = lazy(r"(?:\*+/?)+|\?")
_NOTHING = r"[^\x00-\x{10FFFF}]"


def problem(pattern: str) -> str:
    """Return why this pattern is refused; empty if it is accepted."""
    if not pattern or not pattern.isprintable():
        return "a pattern must be printable text and not empty"
    if len(pattern) > LONGEST:
        return f"a pattern must have at most {LONGEST} characters"
    if len(_WILDCARDS.findall(pattern)) > MOST_WILDCARDS:
        return f"a pattern must have at most {MOST_WILDCARDS} wildcards"
    return ""


@lru_cache(maxsize=1024)
def glob(pattern: str) -> Any:
    """Compile a pattern. ``*`` matches anything within one path segment, ``**`` any number of segments."""
    # Repeated wildcards mean the same as one, but each would multiply the number of states.
    pattern = re.sub(r"\*{3,}", "**", re.sub(r"(?:\*\*/){2,}", "**/", re.sub(r"\*{3,}", "**", pattern)))
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    known = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*"}
    return _compiled("".join(known.get(part) or _escaped(part) for part in parts))


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
    return _escaped(part)


def _escaped(text: str) -> str:
    import re2

    return str(re2.escape(text))


def _compiled(expression: str) -> Any:
    import re2  # takes longer to load than most policies to evaluate, and most have no pattern

    options = re2.Options()
    options.dot_nl = True
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error:  # stored before these limits existed: it matches nothing
        return re2.compile(_NOTHING, options)


def matches(patterns: Iterable[str], name: str) -> bool:
    """True if one of the patterns over ``host/repository`` matches the whole name."""
    return any(_fits(pattern, name) for pattern in patterns)


def _fits(pattern: str, name: str) -> bool:
    """Whether a pattern matches a name. ``host:443`` and ``Host`` are ``host``, in both: it is the same registry.

    Otherwise an image would be no subject of its policy under the other name.
    """
    if glob(pattern).fullmatch(name) is not None:
        return True
    plain = (_with_plain_host(pattern), _with_plain_host(name))
    return plain != (pattern, name) and glob(plain[0]).fullmatch(plain[1]) is not None


def _with_plain_host(text: str) -> str:
    """Return a pattern or name with its host in lower case and without the usual port, as references have it."""
    host, slash, rest = text.partition("/")
    host = host.lower()
    # Not of a pattern such as "*:443", which would then be one for hosts with any port.
    host = host[:-4] if host.endswith(":443") and not host.endswith("*:443") else host
    return f"{_HUB.get(host, host)}{slash}{rest}"


def matches_text(pattern: str, text: str) -> bool:
    """True if a pattern matches the whole text. As in ``fnmatch``, ``*`` matches slashes."""
    return _text_glob(pattern).fullmatch(text.encode("utf-8", "replace").decode()) is not None


def most_specific(patterns: Iterable[str], name: str) -> str | None:
    """The matching pattern with the most literal characters; None if none matches."""
    fitting = [pattern for pattern in patterns if _fits(pattern, name)]
    return max(fitting, key=lambda pattern: (len(pattern.replace("*", "")), pattern), default=None)
