"""The evidence tabs of an image: narrowed, sorted, in pages; the number of rows is always told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from werkzeug.datastructures import MultiDict

from scanner.model.finding import CheckResult, Component, Incomplete, NotApplicable, Passed, Severity
from scanner.model.lineage import BaseImage
from scanner.model.reference import Digest
from tests.reports_factory import engine, failed, image_report, vulnerability
from web.pages import findings
from web.pages.findings import FindingQuery, Rows

OLD = replace(vulnerability("CVE-2026-1", "zlib", "high"), published=datetime(2026, 1, 1, tzinfo=UTC))
NEW = replace(vulnerability("CVE-2026-2", "curl", "high"), published=datetime(2026, 9, 1, tzinfo=UTC))
WORST = replace(vulnerability("CVE-2026-3", "openssl", "critical", fixed=None), known_exploited=True, epss=0.5)
MORE = vulnerability("CVE-2026-4", "zlib", "low")
ITEM = image_report([engine([OLD, NEW, WORST, MORE])])


def asked(query: str) -> FindingQuery:
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    return FindingQuery.of(MultiDict(pairs))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["openssl", "curl", "zlib"]),  # worst first, then the newest advisory
        ("sort=severity", ["zlib", "curl", "openssl"]),
        ("sort=package", ["curl", "openssl", "zlib"]),
        ("sort=-package", ["zlib", "openssl", "curl"]),
        ("sort=-count", ["zlib", "curl", "openssl"]),
        ("sort=-epss", ["openssl", "curl", "zlib"]),
        ("sort=nonsense", ["curl", "openssl", "zlib"]),
        ("severity=low", ["zlib"]),
        ("severity=low&severity=critical", ["openssl", "zlib"]),
        ("severity=nonsense", ["openssl", "curl", "zlib"]),
        ("fixable=1", ["curl", "zlib"]),
        ("exploited=1", ["openssl"]),
        ("q=2026-2", ["curl"]),
        ("q=ZLIB", ["zlib"]),
        ("q=nothing", []),
        ("page=99", ["openssl", "curl", "zlib"]),
        ("page=-1", ["openssl", "curl", "zlib"]),
    ],
)
def test_packages(query: str, expected: list[str]) -> None:
    found = findings.packages(ITEM, None, asked(query))
    assert [row.name for row in found.items] == expected
    assert (found.matching, found.total) == (len(expected), 3)


def test_a_filter_counts_only_what_matches() -> None:
    (row,) = findings.packages(ITEM, None, asked("severity=low")).items
    assert [v.id for v in row.items] == ["CVE-2026-4"]
    assert (row.worst, row.fixes) == (Severity.LOW, ("2.0",))
    assert findings.severities(ITEM) == {"critical": 1, "high": 2, "low": 1, "all": 4, "fixable": 3, "exploited": 1}


def test_findings_of_the_base_and_of_the_image() -> None:
    mine = replace(OLD, layer=Digest.of(b"diff"))
    item = image_report([engine([mine, NEW])])
    base = BaseImage("layers", layers=1)
    assert [r.name for r in findings.packages(item, base, asked("origin=base")).items] == ["zlib"]
    assert [r.name for r in findings.packages(item, base, asked("origin=own")).items] == []
    assert asked("origin=elsewhere").origin == ""


def test_pages() -> None:
    many = image_report([engine([vulnerability(f"CVE-2026-{n}", f"lib{n:03}") for n in range(130)])])
    found = findings.packages(many, None, asked("sort=package&page=2"))
    assert (found.items[0].name, len(found.items), found.first, found.pages) == ("lib020", 20, 21, 7)
    assert found.numbers == [1, 2, 3, 0, 7]
    assert Rows((), 0, 0, 4, 7).numbers == [1, 0, 3, 4, 5, 0, 7]
    assert Rows((), 0, 0, 1, 1).numbers == [1]


def test_checks() -> None:
    results = [
        CheckResult("a-check", Passed()),
        CheckResult("b-check", failed(), Severity.LOW),
        CheckResult("c-check", failed(), Severity.HIGH),
        CheckResult("d-check", Incomplete("layer")),
        CheckResult("e-check", NotApplicable("no shell")),
    ]
    titles = {"a-check": "Alpha"}
    shown = [r.check[0] for r in findings.checks(results, titles, asked("")).items]
    assert shown == ["c", "b", "d", "a", "e"]
    assert [r.check[0] for r in findings.checks(results, titles, asked("outcome=failed")).items] == ["c", "b"]
    assert [r.check[0] for r in findings.checks(results, titles, asked("q=alpha")).items] == ["a"]


def test_components() -> None:
    parts = (
        Component("pkg:deb/debian/zlib@1", "zlib", "1", "debian", licenses=("Zlib",)),
        Component("pkg:npm/left-pad@2", "left-pad", "2", "npm", path="app/package.json"),
    )
    item = image_report([replace(engine([]), components=parts)])
    assert [c.name for c in findings.components(item, asked("")).items] == ["left-pad", "zlib"]
    assert [c.name for c in findings.components(item, asked("sort=-name")).items] == ["zlib", "left-pad"]
    assert [c.name for c in findings.components(item, asked("sort=licence")).items] == ["zlib", "left-pad"]
    assert [c.name for c in findings.components(item, asked("q=zlib")).items] == ["zlib"]
    assert findings.components(None, asked("")).items == []
