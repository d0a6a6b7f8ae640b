"""Patterns that are compiled on first use behave as compiled ones."""

from __future__ import annotations

import re

import pytest

from scanner import patterns
from scanner.patterns import lazy, lazy_re2


def test_nothing_is_compiled_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    genuine = re.compile

    class Counting:
        @staticmethod
        def compile(pattern: str, flags: int = 0) -> re.Pattern[str]:
            compiled.append(pattern)
            return genuine(pattern, flags)

    monkeypatch.setattr(patterns, "re", Counting)
    pattern = lazy("a(b+)", re.IGNORECASE)
    assert compiled == []
    for _ in range(2):
        assert pattern.sub("x", "ABBa") == "xa"
        assert pattern.pattern == "a(b+)"
    found = pattern.search("xabb")
    assert found is not None
    assert found[1] == "bb"
    assert compiled == ["a(b+)"]


def test_a_wrong_pattern_is_refused_when_it_is_used() -> None:
    with pytest.raises(re.error):
        lazy("(").search("")


@pytest.mark.parametrize("pattern", [b"a(b+)", lambda: b"a(b+)"])
def test_re2(pattern: bytes) -> None:
    found = lazy_re2(pattern).search(b"xabb")
    assert found is not None
    assert found[1] == b"bb"
