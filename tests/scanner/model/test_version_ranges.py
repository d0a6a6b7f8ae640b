"""Ranges of versions, by the rules of each ecosystem."""

from __future__ import annotations

import pytest

from scanner.errors import UsageError
from scanner.model.version_ranges import VersionRange


@pytest.mark.parametrize(
    ("kind", "text", "version", "expected"),
    [
        ("maven", "<2.17.1", "2.17.0", True),
        ("maven", "<2.17.1", "2.17.1", False),
        ("maven", "<2.17.1", "2.9.1", True),  # as text it would be greater
        ("maven", "<2.0", "2.0-beta9", True),
        ("deb", ">=5.6.0,<5.6.2", "5.6.1+really5.4.5-1", True),
        ("deb", "<1:2", "1:1.9", True),
        ("deb", "<2", "1:1.0", False),  # an epoch outweighs the rest (deb-version(7))
        ("deb", "<2.0", "2.0~rc1", True),
        ("rpm", "<3.0.7-16.el9", "3.0.7-9.el9", True),
        ("apk", "<1.2.4-r1", "1.2.4-r0", True),
        ("pypi", "<2.0", "2.0rc1", True),
        ("pypi", ">1.0", "1.0.post1", True),
        ("pypi", "==1.0", "1.0.0", True),
        ("npm", "<4.17.21", "4.17.20", True),
        ("npm", "<1.0.0", "1.0.0-rc.1", True),
        ("golang", "<0.17.0", "v0.16.9", True),
        ("gem", "!=7.0", "7.1", True),
        ("npm", "4.17.20", "4.17.20", True),
        ("generic", "<2", "1", None),  # no rules are known
        ("generic", "1.5", "1.5", True),
        ("npm", "<2.0.0", "not a version", None),
        ("npm", "<2.0.0,!=odd", "1.2.3", None),
        ("deb", "<2", "1" * 500, None),
        ("deb", "", "anything", True),
    ],
)
def test_a_range_follows_the_rules_of_the_ecosystem(kind: str, text: str, version: str, expected: bool | None) -> None:
    assert VersionRange.parse(text).contains(kind, version) is expected


@pytest.mark.parametrize("text", ["<", "<1 2", "~>1", "^1.2", "1||2", "<" + "1" * 300, ",".join(["<1"] * 11)])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="version range"):
        VersionRange.parse(text)


@pytest.mark.parametrize("version", ["\x00", "١٢", "1." * 90, "-", "~~~", ":", "1:", "=1", "\ud800"])
@pytest.mark.parametrize("kind", ["deb", "rpm", "apk", "pypi", "npm", "maven", "golang", "gem", "nuget", "composer"])
def test_hostile_versions_are_compared_or_unknown(kind: str, version: str) -> None:
    assert VersionRange.parse("<2.0").contains(kind, version) in (True, False, None)
