"""The order of versions, and the one to upgrade to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.model.versions import common_upgrade, highest, key, upgrade


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0-rc.1", "1.0"),
        ("1.0rc1", "1.0"),
        ("2.0b2", "2.0"),
        ("1.0", "1.0.1"),
        ("9", "1:1"),
        ("1.2-3", "1.2-4"),
        ("3.0.11-1~deb12u1", "3.0.11-1~deb12u2"),
        ("3.0.11-1~deb12u2", "3.0.11-1"),
        ("1.2.3-r0", "1.2.3-r10"),
        ("v1.2.3", "v1.2.10"),
        ("1.1.1a", "1.1.1b"),
        ("1.1.1", "1.1.1n-0+deb11u5"),
        ("5.0.0-alpha.1", "5.0.0-beta.1"),
        ("2.31-13+deb11u5", "2.31-13+deb11u10"),
    ],
)
def test_order(lower: str, higher: str) -> None:
    assert key(lower) < key(higher)


@pytest.mark.parametrize(
    ("installed", "fixed", "to"),
    [
        ("2.3.1", ("3.0.1", "2.3.5"), "2.3.5"),
        ("2.3.1", ("2.4.0", "2.3.5", "3.0.1"), "2.3.5"),
        ("2.1.0", ("2.4.0", "3.0.1"), "2.4.0"),
        ("2.3.6", ("2.3.5", "3.0.1"), "3.0.1"),
        ("1.0", ("2.0", "3.0"), "2.0"),
        ("1.0", (), ""),
        ("9.0", ("2.0", "3.0"), "3.0"),
    ],
)
def test_the_lowest_fix_of_the_own_release_line(installed: str, fixed: tuple[str, ...], to: str) -> None:
    assert upgrade(installed, fixed) == to


@pytest.mark.parametrize(
    ("installed", "advisories", "to"),
    [
        ("3.0.9", [("3.0.11",), ("3.0.13",), ()], "3.0.13"),
        ("2.3.1", [("2.3.5", "3.0.1"), ("2.3.4", "3.0.0")], "2.3.5"),
        # 3.0.2 is above both needs, and the first is fixed in 3.0.9 of that line.
        ("2.3.1", [("2.3.5", "3.0.9"), ("3.0.2",)], "3.0.9"),
        ("1.24.1", [("1.24.4", "1.25.2"), ("1.25.1",)], "1.25.2"),
        ("1.24.1", [("1.24.4", "1.25.2"), ("1.26.0",)], "1.26.0"),
        ("1.0", [(), ()], ""),
        ("9.0", [("2.0",), ("3.0",)], "3.0"),
        ("1:1.2-3", [("1:1.2-3+deb12u1",), ("1:1.2-3+deb12u2",)], "1:1.2-3+deb12u2"),
    ],
)
def test_one_version_has_every_fix(installed: str, advisories: list[tuple[str, ...]], to: str) -> None:
    assert common_upgrade(installed, advisories) == to


@given(st.lists(st.lists(st.from_regex(r"[1-3]\.[0-3]\.[0-3]", fullmatch=True), min_size=1, max_size=3), min_size=1))
def test_it_is_never_lower_than_what_one_finding_needs(advisories: list[list[str]]) -> None:
    to = common_upgrade("1.0.0", advisories)
    assert to in {version for fixed in advisories for version in fixed}
    assert all(min(map(key, fixed)) <= key(to) for fixed in advisories)


def test_a_thousand_findings_of_a_package_are_quick_work() -> None:
    many = [(f"1.{n}.{n + 1}", f"2.{n}.1") for n in range(1000)] + [(f"1.{n}",) for n in range(1000)]
    assert common_upgrade("1.0", many) == "1.999.1000"


def test_the_highest_fixes_all() -> None:
    assert highest(["1.2.9", "1.2.10", "1.2.3"]) == "1.2.10"


def test_any_text_has_a_place() -> None:
    assert sorted(["", "x", "1", "~", "²", "1:²", "9" * 9999], key=key)
