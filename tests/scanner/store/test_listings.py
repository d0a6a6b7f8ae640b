"""Listed images and what is asked about them, on SQLite and PostgreSQL."""

from __future__ import annotations

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
        advisory, touched = listings.affected(session, "CVE-2026-00001", None)
        assert advisory["title"] == "flaw 1"
        assert [(one.digest, one.package, one.fixable) for one in touched] == [(found.digest, "lib1", True)]
        for name, projects in (("CVE-1999-1", None), ("CVE-2026-00001", frozenset({"foreign"}))):
            with pytest.raises(NotFoundError):
                listings.affected(session, name, projects)


def test_search_takes_no_wildcards(database: Database) -> None:
    record(database, factories.report(repository="h.io/a_b"))
    record(database, factories.report(repository="h.io/axb"))
    with database.read() as session:
        found = listings.list_(session, None, listings.Filter(search="a_b")).items
        assert [one.repository for one in found] == ["h.io/a_b"]
        assert listings.list_(session, None, listings.Filter(search="%")).items == ()
