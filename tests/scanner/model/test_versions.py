"""The order of versions, and the one to upgrade to."""

from __future__ import annotations

import pytest

from scanner.model.versions import highest, key, upgrade


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


def test_the_highest_fixes_all() -> None:
    assert highest(["1.2.9", "1.2.10", "1.2.3"]) == "1.2.10"


def test_any_text_has_a_place() -> None:
    assert sorted(["", "x", "1", "~", "²", "1:²", "9" * 9999], key=key)
