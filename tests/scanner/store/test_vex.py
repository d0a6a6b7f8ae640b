"""VEX documents: statements about a vulnerability, within the projects that may be seen."""

from __future__ import annotations

from scanner.model.vex import VexStatement, VexStatus
from scanner.store import vex
from scanner.store.session import Database

NAME = "CVE-2026-00001"


def test_statements_of_other_projects_are_not_shown(database: Database) -> None:
    said = [VexStatement(NAME, ("pkg:deb/debian/lib1",), VexStatus.FIXED)]
    with database.session() as session:
        for project in ("", "shop", "bank"):
            vex.add(session, project, project.encode(), "ada", name="vex", author=project, version="1", statements=said)
    with database.read() as session:
        everything = vex.about(session, NAME, None)
        of_shop = vex.about(session, NAME, frozenset({"shop"}))
        nobodys = vex.about(session, NAME, frozenset())
    assert {view.project for view in everything} == {"", "shop", "bank"}
    assert {view.project for view in of_shop} == {"", "shop"}, "one without a project applies to all"
    assert [view.project for view in nobodys] == [""]
