"""VEX: an imported statement takes a finding out of decisions, for whom it speaks, as long as it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.model.finding import Severity
from scanner.store import policies
from scanner.store.session import Database
from tests.scanner.policy.test_openvex import DOCUMENT
from tests.scanner.store import factories as make
from tests.web.api.test_gate import policy
from tests.web.conftest import Api, Worker
from tests.web.people import calling, person

PACKAGE = make.package(1)
FLAW = make.vulnerability(1, PACKAGE, severity=Severity.CRITICAL, aliases=("GHSA-1",))
BAD = make.report("bad", packages=[PACKAGE], vulnerabilities=[FLAW])


@pytest.fixture
def verdict(api: Api, worker: Worker, database: Database) -> Callable[[], str]:
    with database.session() as session:
        policies.put(session, "all", policy(), "test")
    api("POST", "/scans", {"image": f"{make.REPOSITORY}@{BAD.digest}"})
    worker.finish(BAD)
    return lambda: api("POST", "/gate", {"image": f"{make.REPOSITORY}@{BAD.digest}"}).json["verdict"]


def stated(
    *, at: str = "2026-11-01T10:00:00Z", product: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    statement = {
        "vulnerability": {"name": FLAW.id},
        "products": [product or {"@id": PACKAGE.purl}],
        "status": "not_affected",
        "justification": "component_not_present",
        **changes,
    }
    return {"document": {**DOCUMENT, "timestamp": at, "statements": [statement]}}


def test_a_statement_answers_a_finding_until_it_is_taken_back(api: Api, verdict: Callable[[], str]) -> None:
    assert verdict() == "deny"
    made = api("POST", "/vex", stated())
    assert made.status_code == 201
    assert (made.json["statements"], made.json["project"]) == (1, None)
    assert verdict() == "allow"
    assert api("POST", "/vex", stated()).json["reason"] == "already_imported"
    assert api("DELETE", made.headers["Location"]).status_code == 204
    assert verdict() == "deny"
    assert [e["action"] for e in api("GET", "/audit-log").json["items"]][:2] == ["vex.remove", "vex.import"]


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ({"vulnerability": "GHSA-1"}, "allow"),
        ({"vulnerability": "CVE-2026-2"}, "deny"),
        ({"status": "affected", "justification": ""}, "deny"),
        ({"status": "under_investigation", "justification": ""}, "deny"),
        ({"status": "fixed", "justification": ""}, "allow"),
        ({"justification": "", "impact_statement": "we think it is fine"}, "deny"),
        ({"product": {"@id": "pkg:deb/debian/other@1"}}, "deny"),
        ({"product": {"@id": "x", "hashes": {"sha-256": BAD.digest.hex}}}, "allow"),
        ({"product": {"@id": f"pkg:oci/cart@{BAD.digest}", "subcomponents": [{"@id": PACKAGE.purl}]}}, "allow"),
        ({"product": {"@id": f"pkg:oci/cart@{BAD.digest}", "subcomponents": [{"@id": "pkg:deb/x@1"}]}}, "deny"),
    ],
)
def test_a_statement_means_what_it_says(
    api: Api, verdict: Callable[[], str], changes: dict[str, Any], after: str
) -> None:
    assert api("POST", "/vex", stated(**changes)).status_code == 201
    assert verdict() == after


def test_the_newest_statement_counts(api: Api, verdict: Callable[[], str]) -> None:
    api("POST", "/vex", stated(at="2026-11-02T10:00:00Z"))
    api("POST", "/vex", stated(status="affected", justification="", at="2026-11-01T10:00:00Z"))
    assert verdict() == "allow"
    api("POST", "/vex", stated(status="affected", justification="", at="2026-11-03T10:00:00Z"))
    assert verdict() == "deny"


def test_what_contradicts_itself_answers_nothing(api: Api, verdict: Callable[[], str]) -> None:
    api("POST", "/vex", stated())
    api("POST", "/vex", stated(status="affected", justification=""))
    assert verdict() == "deny"


def test_a_document_of_a_project_speaks_for_that_one(
    app: OpenAPI, database: Database, api: Api, verdict: Callable[[], str]
) -> None:
    person(database, "eve", "developer", member_of=["elsewhere"])
    ada = calling(app, database, person(database, "ada", "viewer", member_of=["default"]))
    made = api("POST", "/vex", {**stated(), "project": "elsewhere"})
    assert made.status_code == 201
    assert verdict() == "deny"
    assert ada("GET", made.headers["Location"]).status_code == 404
    assert ada("GET", "/vex").json["items"] == []


def test_a_document_that_is_wrong_is_refused_with_its_place(api: Api) -> None:
    answer = api("POST", "/vex", {"document": {**DOCUMENT, "statements": []}})
    assert (answer.status_code, answer.json["reason"]) == (422, "bad_vex")
    assert "statements" in answer.json["detail"]
