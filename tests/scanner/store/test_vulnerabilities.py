"""Vulnerabilities across images: worst first, page by page, and only what touches an image that may be seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from scanner.errors import UsageError
from scanner.store import images, scans, vulnerabilities
from scanner.store.session import Database
from tests.scanner.store import factories as make


@pytest.fixture(autouse=True)
def fleet(database: Database) -> None:
    for name, project, numbers in (("one", "default", range(1, 13)), ("two", "shop", range(4, 8))):
        packages = [make.package(1)]
        found = make.report(
            name,
            repository=f"registry.example.com/{project}/app",
            packages=packages,
            vulnerabilities=[make.vulnerability(n, packages[0]) for n in numbers],
        )
        with database.session() as session:
            scans.request(session, replace(make.request(f"registry.example.com/{project}/app:1"), project=project))
            held = scans.claim(session, "w", ["push"], 60)
            assert held
            images.record(session, held, found, make.evidence(found), [make.decided(found)])


def test_worst_first_page_by_page(database: Database) -> None:
    with database.read() as session:
        whole = vulnerabilities.list_vulnerabilities(session, None)
        pages, cursor = [], None
        while True:
            page = vulnerabilities.list_vulnerabilities(session, None, cursor=cursor, limit=5)
            pages += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
    assert tuple(pages) == whole.items
    assert [v.severity.rank for v in pages] == sorted((v.severity.rank for v in pages), reverse=True)
    assert {v.name: (v.images, v.fixable) for v in pages}["CVE-2026-00005"] == (2, True)
    assert {v.name: (v.images, v.fixable) for v in pages}["CVE-2026-00002"] == (1, False)


def test_search_and_severity(database: Database) -> None:
    with database.read() as session:
        assert [
            v.name for v in vulnerabilities.list_vulnerabilities(session, None, vulnerabilities.Filter("FLAW 11")).items
        ] == ["CVE-2026-00011"]
        assert vulnerabilities.list_vulnerabilities(session, None, vulnerabilities.Filter("100%")).items == ()
        found = vulnerabilities.list_vulnerabilities(
            session, None, vulnerabilities.Filter(severities=("critical",))
        ).items
    assert {v.severity for v in found} == {"critical"}


def test_what_touches_only_others_is_not_there(database: Database) -> None:
    with database.read() as session:
        found = vulnerabilities.list_vulnerabilities(session, frozenset({"shop"})).items
        assert {v.name for v in found} == {f"CVE-2026-{n:05}" for n in range(4, 8)}
        assert {v.images for v in found} == {1}
        with pytest.raises(UsageError):
            vulnerabilities.list_vulnerabilities(session, None, cursor="nonsense")


@pytest.mark.parametrize("sort", ["-name", "published"])
def test_pages_in_any_order_are_the_whole_list(database: Database, sort: str) -> None:
    with database.read() as session:
        whole = vulnerabilities.list_vulnerabilities(session, None, sort=sort).items
        paged, cursor = list[vulnerabilities.ListedVulnerability](), None
        while True:
            page = vulnerabilities.list_vulnerabilities(session, None, sort=sort, cursor=cursor, limit=5)
            paged += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert tuple(paged) == whole
        critical = vulnerabilities.list_vulnerabilities(
            session, None, vulnerabilities.Filter(severities=("critical",)), sort=sort
        ).items
    names = [one.name for one in whole]
    assert names == sorted(names, reverse=sort.startswith("-")), "those without a day are in the order of their names"
    assert {one.name for one in critical} == {one.name for one in whole if one.severity == "critical"}


def test_what_is_exploited_or_new(database: Database) -> None:
    with database.read() as session:
        for narrowed, count in (
            (vulnerabilities.Filter(exploited=True), 0),
            (
                vulnerabilities.Filter(new=timedelta(days=1)),
                len(vulnerabilities.list_vulnerabilities(session, None).items),
            ),
            (vulnerabilities.Filter(new=timedelta(0)), 0),
        ):
            assert len(vulnerabilities.list_vulnerabilities(session, None, narrowed).items) == count, narrowed
        mine = vulnerabilities.Filter(new=timedelta(days=1))
        assert {v.name for v in vulnerabilities.list_vulnerabilities(session, frozenset({"shop"}), mine).items} == {
            f"CVE-2026-{n:05}" for n in range(4, 8)
        }


def test_an_export_has_every_finding_of_every_image_once(database: Database) -> None:
    with database.read() as session:
        rows = list(vulnerabilities.export_findings(session, None))
        mine = list(vulnerabilities.export_findings(session, frozenset({"shop"})))
    assert {row["vulnerability"] for row in mine} == {f"CVE-2026-{n:05}" for n in range(4, 8)}
    assert len({(row["digest"], row["package"], row["vulnerability"]) for row in rows}) == len(rows) > len(mine)
    assert {row["project"] for row in mine} == {"shop"}
