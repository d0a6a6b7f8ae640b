"""Version ranges of a search for a package: ``<2.17.1``, ``>=2.0, <2.17.1``.

Versions are compared by the rules of the package's own ecosystem (the type of its purl), by the library univers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scanner.errors import UsageError
from scanner.patterns import lazy

_LONGEST = 200  # characters: longer versions are data that only look like one, and cost the comparison much time
_CONSTRAINT = lazy(r"(<=|>=|==|!=|<|>|=)?\s*([^\s,<>=!|^~][^\s,<>=!|]*)")
# The types whose versions univers compares by the rules of the ecosystem; it calls them as purl does.
_PURL_TYPES = (
    *("deb", "rpm", "apk", "alpm", "pypi", "npm", "maven"),
    *("golang", "gem", "nuget", "cargo", "composer", "hex", "conan"),
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class VersionRange:
    """Versions that fulfil every constraint. Without constraints: every version."""

    constraints: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Parse constraints, separated by commas; a version alone means ``=``. Raises UsageError."""
        found = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = _CONSTRAINT.fullmatch(part)
            if match is None or len(part) > _LONGEST:
                raise UsageError(
                    f"not a version range: {part[:80]!r}",
                    reason="bad_version_range",
                    hint="write <2.17.1, or >=2.0,<2.17.1, or one version",
                )
            found.append((match[1] or "=", match[2]))
        if len(found) > 10:
            raise UsageError("a version range has 10 constraints at most", reason="bad_version_range")
        return cls(tuple(found))

    def contains(self, purl_type: str, version: str) -> bool | None:
        """Whether a version is in the range. None: it cannot be compared, which is not the same as no."""
        if not self.constraints:
            return True
        if len(version) > _LONGEST:
            return None
        answers = [_compare(purl_type, version, sign, bound) for sign, bound in self.constraints]
        return False if False in answers else None if None in answers else True


def _compare(purl_type: str, version: str, sign: str, bound: str) -> bool | None:
    ours, theirs = _version(purl_type, version), _version(purl_type, bound)
    if ours is None or theirs is None:
        # The same text is the same version, whatever its ecosystem calls a version.
        return sign in ("=", "==", "<=", ">=") if version == bound else None
    try:
        return _COMPARE[sign](ours, theirs)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        return None


@lru_cache(maxsize=4096)
def _version(purl_type: str, text: str) -> Any:
    """A version of univers. None for an ecosystem that it does not know, or text that is no version there."""
    known = _ecosystems().get(purl_type)
    if known is None:
        return None
    try:
        # Go and npm write v1.2.3 as well as 1.2.3; people write what they read.
        return known(text.removeprefix("v") if text[1:2].isdigit() else text)
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, _nuget_error()):
        return None


def _nuget_error() -> type[Exception]:
    """What univers raises for text that is no NuGet version; for all others it raises a ValueError."""
    from univers.nuget import InvalidNuGetVersion

    error: type[Exception] = InvalidNuGetVersion
    return error


@lru_cache(maxsize=1)
def _ecosystems() -> dict[str, Any]:
    """Version classes by purl type. Imported here because only a search needs them."""
    from univers.version_range import RANGE_CLASS_BY_SCHEMES

    return {kind: RANGE_CLASS_BY_SCHEMES[kind].version_class for kind in _PURL_TYPES}
