"""Regular expressions that are compiled when they are first used.

A command uses few of the patterns of the modules that it imports, and compiling all of them takes longer than a
command that prints a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, AnyStr, cast


class _Lazy:
    """Stands for a compiled pattern. Its methods are looked up once, then called directly."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build

    def __getattr__(self, name: str) -> Any:
        compiled = self.__dict__.get("_compiled")
        if compiled is None:
            compiled = self.__dict__["_compiled"] = self._build()
        value = getattr(compiled, name)
        self.__dict__[name] = value
        return value


def lazy(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return a stand-in for ``re.compile(pattern, flags)``."""
    return cast("re.Pattern[AnyStr]", _Lazy(lambda: re.compile(pattern, flags)))


def lazy_re2(pattern: bytes | Callable[[], bytes], memory: int = 0) -> re.Pattern[bytes]:
    """Return a stand-in for a pattern of RE2, whose time is linear in its input. The module is loaded on first use.

    ``memory``: the most bytes for its automaton, where RE2's own default would make a large pattern slow.
    """

    def build() -> Any:
        import re2

        options = re2.Options()
        if memory:
            options.max_mem = memory
        return re2.compile(pattern() if callable(pattern) else pattern, options)

    return cast("re.Pattern[bytes]", _Lazy(build))
