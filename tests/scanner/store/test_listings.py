"""Listed images and what is asked about them, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest

from scanner.errors import NotFoundError
from scanner.store import listings
from scanner.store.session import Database
from tests.scanner.store import factories
from tests.scanner.store.recorded import record


def test_who_is_affected(database: Database) -> None:
    package = factories.package(1)
    found = factories.report(packages=[package], vulnerabilities=[factories.vulnerability(1, package)])
    record(database, found)
    with database.read() as session:
        advisory, touched = listings.affected_images(session, "CVE-2026-00001", None)
        assert advisory["title"] == "flaw 1"
        assert [(one.digest, one.package, one.fixable) for one in touched] == [(found.digest, "lib1", True)]
        for name, projects in (("CVE-1999-1", None), ("CVE-2026-00001", frozenset({"foreign"}))):
            with pytest.raises(NotFoundError):
                listings.affected_images(session, name, projects)


def test_search_takes_no_wildcards(database: Database) -> None:
    record(database, factories.report(repository="h.io/a_b"))
    record(database, factories.report(repository="h.io/axb"))
    with database.read() as session:
        found = listings.list_images(session, None, listings.Filter(search="a_b")).items
        assert [one.repository for one in found] == ["h.io/a_b"]
        assert listings.list_images(session, None, listings.Filter(search="%")).items == ()


def test_each_criterion_narrows_the_list(database: Database) -> None:
    package = factories.package(1)
    # Number 1: high, with a fix; 2: medium, without one.
    record(
        database,
        factories.report("a", packages=[package], vulnerabilities=[factories.vulnerability(1, package)]),
        project="shop",
    )
    flaw = factories.vulnerability(2, package, known_exploited=True)
    record(database, factories.report("b", repository="h.io/b", packages=[package], vulnerabilities=[flaw]))
    record(database, factories.report("c", repository="h.io:5000/c"))
    a, b, c = factories.REPOSITORY, "h.io/b", "h.io:5000/c"
    severities = [factories.vulnerability(n, package).severity.value for n in (1, 2)]
    cases: list[tuple[listings.Filter, set[str]]] = [
        (listings.Filter(), {a, b, c}),
        (listings.Filter(project="shop"), {a}),
        (listings.Filter(host="h.io"), {b}),
        (listings.Filter(fixable=True), {a}),
        (listings.Filter(exploited=True), {b}),
        (listings.Filter(signer=listings.UNSIGNED), {a, b, c}),
        (listings.Filter(signer="release"), set()),
        (listings.Filter(base="debian:12"), set()),
        (listings.Filter(repository=c), {c}),
        (listings.Filter(new=timedelta(days=1)), {a, b}),
        (listings.Filter(severities=(severities[0],)), {a}),
        (listings.Filter(severities=tuple(severities)), {a, b}),
    ]
    with database.read() as session:
        for narrowed, expected in cases:
            found = listings.list_images(session, None, narrowed).items
            assert {one.repository for one in found} == expected, narrowed
        facets = listings.facets(session, None)
        assert (facets.projects, facets.hosts) == (
            {"shop": 1, "default": 2},
            {"registry.example.com": 1, "h.io": 1, "h.io:5000": 1},
        )
        assert (facets.verdicts, facets.exploited, facets.signers) == ({"allow": 3}, 1, {})
        assert listings.facets(session, frozenset({"shop"})).hosts == {"registry.example.com": 1}


def test_pages_in_any_order_are_the_whole_list(database: Database) -> None:
    for name in "abc":
        record(database, factories.report(name, repository=f"h.io/{name}"))
    with database.read() as session:
        for sort in ("", "name", "-name", "severity", "-scanned", "nonsense"):
            whole = listings.list_images(session, None, sort=sort).items
            first = listings.list_images(session, None, sort=sort, limit=2)
            rest = listings.list_images(session, None, sort=sort, limit=2, cursor=first.next_cursor)
            assert (*first.items, *rest.items) == whole, sort
            assert (len(whole), rest.next_cursor) == (3, None), sort


def test_an_image_of_another_project_is_not_there(database: Database) -> None:
    found = factories.report()
    record(database, found, project="shop")
    digest, shop, bank = str(found.digest), frozenset({"shop"}), frozenset({"bank"})
    with database.read() as session:
        for projects in (None, shop):
            assert listings.newest_report(session, digest, projects)[1] == found
            assert [one.project for one in listings.names(session, digest, projects)] == ["shop"]
            assert len(listings.decisions(session, digest, projects).items) == 1
        with pytest.raises(NotFoundError, match="no such image"):
            listings.newest_report(session, digest, bank)
        assert listings.names(session, digest, bank) == ()
        assert listings.decisions(session, digest, bank).items == ()
