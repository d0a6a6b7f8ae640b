"""Patterns mean what they say, and no pattern takes longer than the name is long."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.model.glob import matches, matches_text, most_specific, problem

NAME = "registry.example.com/" + "a/" * 120 + "b"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("**", "h/a/b", True),
        ("h/*", "h/a", True),
        ("h/*", "h/a/b", False),
        ("h/**", "h/a/b", True),
        ("h/**/b", "h/b", True),
        ("h/**/b", "h/a/a/b", True),
        ("h/**/b", "h/ab", False),
        ("h/a.b", "h/a+b", False),
        ("h/a*c", "h/abc", True),
        ("h/a", "h/a\n", False),
        # The usual port of HTTPS may be named or not: a policy for one name holds for the other.
        ("r.example/**", "r.example:443/a", True),
        ("r.example:443/**", "r.example/a", True),
        ("r.example:443/**", "r.example:443/a", True),
        ("*.example/**", "r.example:443/a", True),
        ("r.example/**", "r.example:4430/a", False),
        ("r.example/**", "r.example:8443/a", False),
        ("*:443/**", "r.example:443/a", True),
        ("*:443/**", "r.example:8443/a", False),
        ("r.example/a:443", "r.example/a", False),
    ],
)
def test_meaning(pattern: str, name: str, fits: bool) -> None:
    assert matches([pattern], name) is fits


@pytest.mark.parametrize(
    "pattern",
    ["**" * 11, "**/" * 11, "**/**" * 11, "***", "*" * 40, "**/a" * 20 + "c", "*a" * 31 + "c", ("**" * 11) + "c"],
)
def test_wildcards_beside_each_other_end(pattern: str) -> None:
    assert isinstance(matches([pattern], NAME), bool)
    assert isinstance(matches_text(pattern + "[!x]?", NAME * 50), bool)


@given(st.text(alphabet="*/ab?", max_size=12), st.text(alphabet="/ab", max_size=12))
def test_text_patterns_mean_what_fnmatch_says(pattern: str, text: str) -> None:
    assert matches_text(pattern, text) is fnmatchcase(text, pattern)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("[ab]*", "bx"),
        ("[!ab]*", "cx"),
        ("[a", "[a"),
        ("a[]b]c", "a]c"),
        ("[a-c]x", "bx"),
        ("a\\d", "a\\d"),
        ("é*", "éa"),
    ],
)
def test_classes_as_fnmatch(pattern: str, text: str) -> None:
    assert fnmatchcase(text, pattern)
    assert matches_text(pattern, text)


def test_what_is_refused() -> None:
    assert problem("") and problem("a\x00") and problem("a" * 501) and problem("*a" * 33)
    assert not problem("**" * 20) and not problem("registry.example.com/**/x-*")


def test_a_pattern_beyond_every_bound_matches_nothing() -> None:
    assert not matches(["a" * 50_000_000], "a")


def test_a_name_that_is_not_utf_8() -> None:
    assert matches_text("bin/*", "bin/\udcff")


def test_the_most_literal_pattern_counts() -> None:
    assert most_specific(["**", "h/**", "h/a/*"], "h/a/b") == "h/a/*"


@pytest.mark.parametrize("pattern", ["Registry.Example.com/**", "REGISTRY.example.com:443/shop/*"])
def test_a_host_has_no_case(pattern: str) -> None:
    assert matches([pattern], "registry.example.com/shop/app")
    assert not matches([pattern], "registry.example.com.evil.net/shop/app")
    assert not matches(["registry.example.com/Shop/*"], "registry.example.com/shop/app")


def test_docker_hub_by_its_other_names() -> None:
    assert matches(["index.docker.io/library/*"], "docker.io/library/debian")
    assert matches(["registry-1.docker.io:443/**"], "docker.io/library/debian")
