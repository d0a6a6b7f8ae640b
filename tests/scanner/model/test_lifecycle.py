"""How long a release is looked after: by either engine's names, from the longest part of a version that is known."""

from __future__ import annotations

from datetime import date

import pytest

from scanner.model.lifecycle import end_of_life


@pytest.mark.parametrize(
    ("family", "version", "ends"),
    [
        ("debian", "12", date(2028, 6, 30)),
        ("debian", "12.8", date(2028, 6, 30)),
        ("ubuntu", "22.04", date(2027, 6, 1)),
        ("alpine", "3.19.1", date(2025, 11, 1)),
        ("redhat", "8.10", date(2029, 5, 31)),
        ("rhel", "8", date(2029, 5, 31)),
        ("alma", "9.4", date(2032, 5, 31)),
        ("almalinux", "9", date(2032, 5, 31)),
        ("amazon", "2 (Karoo)", date(2026, 6, 30)),
        ("amzn", "2018.03", date(2023, 12, 31)),
    ],
)
def test_a_release_that_is_known(family: str, version: str, ends: date) -> None:
    assert end_of_life(family, version) == ends


@pytest.mark.parametrize(
    ("family", "version"),
    [
        ("debian", ""),
        ("debian", "99"),
        ("debian", "sid"),
        ("ubuntu", "22"),
        ("alpine", "3"),
        ("", ""),
        ("mystery", "12"),
        ("debian", "1.2" * 999),
    ],
)
def test_what_is_not_in_the_table_is_not_known(family: str, version: str) -> None:
    assert end_of_life(family, version) is None
