"""Statements that a person makes: about what the project has, complete, and undone with their document."""

from __future__ import annotations

import pytest

from scanner.errors import NotFoundError, RefusedError, UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.model.vex import VexStatement, VexStatus
from scanner.services import vex as use_cases
from scanner.store import vex
from scanner.store.session import Database
from tests.actors import ownerless
from tests.scanner.store import factories as make
from tests.scanner.store import recorded

PACKAGE = make.package(1)
FLAW = make.vulnerability(1, PACKAGE)


@pytest.fixture
def database(database: Database) -> Database:
    recorded.record(database, make.report(packages=[PACKAGE], vulnerabilities=[FLAW]))
    return database


def wanted(status: VexStatus, **more: object) -> use_cases.NewStatement:
    return use_cases.NewStatement(FLAW.id, "default", status, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("packages", [False, True])
@pytest.mark.parametrize(
    ("status", "more"),
    [
        (VexStatus.NOT_AFFECTED, {"justification": "vulnerable_code_not_present"}),
        (VexStatus.AFFECTED, {"impact": "update the base image"}),
        (VexStatus.FIXED, {"impact": "patched by us"}),
    ],
)
def test_a_statement_becomes_a_document(
    database: Database, status: VexStatus, more: dict[str, str], packages: bool
) -> None:
    with database.session() as session:
        made = use_cases.state(session, COMMAND_LINE, wanted(status, packages=packages, **more))
        (said,) = vex.about(session, FLAW.id, None)
        assert (said.status, said.justification) == (status.value, more.get("justification", ""))
        assert said.impact == more.get("impact", "")
        assert (made.project, made.statements) == ("default", 1)


@pytest.mark.parametrize("status", [VexStatus.AFFECTED, VexStatus.FIXED, VexStatus.UNDER_INVESTIGATION])
def test_a_statement_without_an_explanation_is_refused(database: Database, status: VexStatus) -> None:
    with database.session() as session, pytest.raises(UsageError) as refused:
        use_cases.state(session, COMMAND_LINE, wanted(status))
    assert refused.value.field == "impact"


def test_a_statement_is_about_what_the_project_has(database: Database) -> None:
    with database.session() as session:
        with pytest.raises(NotFoundError, match="no image of the project"):
            use_cases.state(
                session, COMMAND_LINE, use_cases.NewStatement("CVE-2026-9", "default", VexStatus.FIXED, impact="x")
            )
        assert vex.list_documents(session, None).items == ()


def test_a_document_for_every_project_is_removed_by_who_sees_every_project(database: Database) -> None:
    confined = ownerless("ci", "manage", projects=frozenset({"default"}))
    with database.session() as session:
        own = use_cases.state(session, COMMAND_LINE, wanted(VexStatus.FIXED, impact="patched"))
        said = [VexStatement(FLAW.id, ("pkg:deb/debian/lib1",), VexStatus.FIXED)]
        shared = vex.add(session, "", b"{}", "ada", name="all", author="ada", version="1", statements=said)
        with pytest.raises(RefusedError):
            use_cases.remove(session, confined, shared.id)
        use_cases.remove(session, confined, own.id)
        assert [each.project for each in vex.about(session, FLAW.id, None)] == [""]
        use_cases.remove(session, COMMAND_LINE, shared.id)
        assert vex.list_documents(session, None).items == ()
