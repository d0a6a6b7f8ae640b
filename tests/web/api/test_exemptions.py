"""Exemptions: asked for by one, approved by another, for these images only, until their end or until the facts
change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask_openapi3.openapi import OpenAPI

from scanner.model.finding import Severity
from scanner.store import policies
from scanner.store.schema import exemption
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.scanner.store.together import together
from tests.web.api.test_gate import policy
from tests.web.conftest import Api, Worker
from tests.web.people import calling, person

PACKAGE = make.package(2)
UNFIXED = make.vulnerability(2, PACKAGE, severity=Severity.CRITICAL, fixed_versions=())
BAD = make.report("bad", packages=[PACKAGE], vulnerabilities=[UNFIXED])
SOON = (datetime.now(UTC) + timedelta(days=30)).isoformat()
ASKED = {
    "images": [make.REPOSITORY],
    "subject": UNFIXED.id,
    "justification": "the code that is vulnerable is never called",
    "expires_at": SOON,
}


@pytest.fixture(autouse=True)
def in_force(database: Database) -> None:
    with database.session() as session:
        policies.put(session, "all", policy(), "test")


@pytest.fixture
def ada(app: OpenAPI, database: Database) -> Api:
    """A developer of the default project."""
    return calling(app, database, person(database, "ada", "developer", member_of=["default"]))


@pytest.fixture
def grace(app: OpenAPI, database: Database) -> Api:
    return calling(app, database, person(database, "grace", "security"))


@pytest.fixture
def judged(api: Api, worker: Worker) -> Callable[..., Any]:
    """The gate's answer about the bad image, which was scanned once."""
    api("POST", "/scans", {"image": f"{make.REPOSITORY}@{BAD.digest}"})
    worker.finish(BAD)
    return lambda: api("POST", "/gate", {"image": f"{make.REPOSITORY}@{BAD.digest}"}).json


def asked(ada: Api, **changes: Any) -> str:
    answer = ada("POST", "/exemptions", {**ASKED, **changes})
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def test_an_approved_exemption_lets_it_pass_with_a_warning_that_names_who(
    ada: Api, grace: Api, judged: Callable[..., Any]
) -> None:
    assert judged()["verdict"] == "deny"
    identifier = asked(ada)
    assert judged()["verdict"] == "deny"
    approved = grace("POST", f"/exemptions/{identifier}/approve", {"note": "until the release"})
    assert (approved.json["state"], approved.json["decided_by"]) == ("approved", "grace")
    answer = judged()
    assert answer["verdict"] == "warn"
    (reason,) = answer["reasons"]
    assert (reason["kind"], reason["exemption"]) == ("exempted", identifier)
    assert "accepted by grace" in reason["message"]
    assert answer["valid_until"].startswith(SOON[:10])


def test_revoking_it_denies_again(ada: Api, grace: Api, judged: Callable[..., Any]) -> None:
    identifier = asked(ada)
    grace("POST", f"/exemptions/{identifier}/approve", {})
    assert judged()["verdict"] == "warn"
    assert ada("POST", f"/exemptions/{identifier}/revoke", {"note": "not needed"}).json["state"] == "revoked"
    assert judged()["verdict"] == "deny"
    assert grace("POST", f"/exemptions/{identifier}/approve", {}).status_code == 409


def test_nobody_approves_what_they_asked_for(
    app: OpenAPI, database: Database, ada: Api, grace: Api, judged: Callable[..., Any]
) -> None:
    own = asked(grace)
    for said in ("approve", "reject"):
        answer = grace("POST", f"/exemptions/{own}/{said}", {})
        assert (answer.status_code, answer.json["reason"]) == (403, "four_eyes")
    assert ada("POST", f"/exemptions/{own}/approve", {}).status_code == 403
    assert judged()["verdict"] == "deny"


def test_a_second_token_is_not_a_second_person(
    app: OpenAPI, database: Database, api: Api, grace: Api, judged: Callable[..., Any]
) -> None:
    made = grace("GET", "/exemptions")
    assert made.status_code == 200
    heidi = person(database, "heidi", "admin")
    one, two = calling(app, database, heidi), calling(app, database, heidi)
    identifier = asked(one)
    assert two("POST", f"/exemptions/{identifier}/approve", {}).json["reason"] == "four_eyes"
    nobodys = api("POST", f"/exemptions/{identifier}/approve", {})
    assert (nobodys.status_code, nobodys.json["reason"]) == (403, "needs_person")


def test_of_many_who_approve_at_once_one_does(
    app: OpenAPI, database: Database, ada: Api, judged: Callable[..., Any]
) -> None:
    identifier = asked(ada)
    people = [calling(app, database, person(database, f"s{n}", "security")) for n in range(12)]
    statuses = together(12, lambda n: people[n]("POST", f"/exemptions/{identifier}/approve", {}).status_code)
    assert sorted(statuses) == [200] + [409] * 11


@pytest.mark.parametrize(
    "changes",
    [
        {"images": ["registry.example.com/other/**"]},
        {"subject": "CVE-2026-00004"},
        {"purl": "pkg:deb/debian/other@1"},
        {"rule": "another-rule"},
    ],
)
def test_it_covers_what_it_names_and_nothing_else(
    ada: Api, grace: Api, judged: Callable[..., Any], changes: dict[str, Any]
) -> None:
    grace("POST", f"/exemptions/{asked(ada, **changes)}/approve", {})
    assert judged()["verdict"] == "deny"


@pytest.mark.parametrize(
    "changes",
    [{"rule": "no-criticals", "subject": ""}, {"purl": PACKAGE.purl}, {"images": ["**"]}, {"images": [BAD.digest]}],
)
def test_it_may_name_a_rule_a_package_a_pattern_or_a_digest(
    ada: Api, grace: Api, judged: Callable[..., Any], changes: dict[str, Any]
) -> None:
    grace("POST", f"/exemptions/{asked(ada, **changes)}/approve", {})
    assert judged()["verdict"] == "warn"


def test_past_its_end_it_is_nothing(ada: Api, grace: Api, judged: Callable[..., Any], database: Database) -> None:
    identifier = asked(ada)
    grace("POST", f"/exemptions/{identifier}/approve", {})
    assert judged()["verdict"] == "warn"
    with database.session() as session:
        session.execute(exemption.update().values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
        session.execute(sa.text("UPDATE verdict SET valid_until = 1"))  # the moment it was decided to hold until
    assert judged()["verdict"] == "deny"
    assert ada("GET", f"/exemptions/{identifier}").json["state"] == "expired"
    assert [e["id"] for e in ada("GET", "/exemptions?state=expired").json["items"]] == [identifier]
    assert ada("GET", "/exemptions?state=approved").json["items"] == []


@pytest.mark.parametrize(
    ("fact", "why"), [({"fixed_versions": ("9.9",)}, "there is a fix"), ({"known_exploited": True}, "is exploited")]
)
def test_it_ends_when_the_facts_are_others(
    api: Api, ada: Api, grace: Api, worker: Worker, judged: Callable[..., Any], fact: dict[str, Any], why: str
) -> None:
    identifier = asked(ada)
    grace("POST", f"/exemptions/{identifier}/approve", {})
    assert judged()["verdict"] == "warn"
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:2", "force": True})
    worker.finish(make.report("bad", packages=[PACKAGE], vulnerabilities=[replace(UNFIXED, **fact)]))
    assert judged()["verdict"] == "deny"
    ended = ada("GET", f"/exemptions/{identifier}").json
    assert ended["state"] == "lapsed"
    assert why in ended["note"]
    assert any(e["action"] == "exemption.lapse" for e in api("GET", "/audit-log").json["items"])


def test_whoever_accepts_it_in_spite_of_a_fix_says_so(ada: Api, grace: Api, api: Api, worker: Worker) -> None:
    fixable = make.report("fixable", packages=[PACKAGE], vulnerabilities=[replace(UNFIXED, fixed_versions=("3",))])
    image = {"image": f"{make.REPOSITORY}@{fixable.digest}"}
    api("POST", "/scans", image)
    worker.finish(fixable)
    made = ada("POST", "/exemptions", ASKED).json
    assert made["until_fixed"] is False  # there is one already
    grace("POST", f"/exemptions/{made['id']}/approve", {})
    assert api("POST", "/gate", image).json["verdict"] == "warn"


def test_one_that_would_lapse_at_once_is_asked_about_first(ada: Api, grace: Api, api: Api, worker: Worker) -> None:
    exploited = make.report("exploited", packages=[PACKAGE], vulnerabilities=[replace(UNFIXED, known_exploited=True)])
    image = {"image": f"{make.REPOSITORY}@{exploited.digest}"}
    api("POST", "/scans", image)
    worker.finish(exploited)
    refused = ada("POST", "/exemptions", ASKED)
    assert (refused.status_code, refused.json["reason"]) == (409, "would_lapse")
    assert "already exploited" in refused.json["detail"] and "at once" in refused.json["detail"]
    made = ada("POST", "/exemptions", ASKED | {"until_exploited": False}).json
    grace("POST", f"/exemptions/{made['id']}/approve", {})
    assert api("POST", "/gate", image).json["verdict"] == "warn"


def test_so_is_one_until_there_is_a_fix_where_there_is_one(ada: Api, api: Api, worker: Worker) -> None:
    fixable = make.report("fixable", packages=[PACKAGE], vulnerabilities=[replace(UNFIXED, fixed_versions=("3",))])
    api("POST", "/scans", {"image": f"{make.REPOSITORY}@{fixable.digest}"})
    worker.finish(fixable)
    refused = ada("POST", "/exemptions", ASKED | {"until_fixed": True})
    assert (refused.status_code, refused.json["reason"]) == (409, "would_lapse")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"subject": ""}, 422),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422),
        ({"expires_at": (datetime.now(UTC) + timedelta(days=400)).isoformat()}, 422),
        ({"expires_at": "tomorrow"}, 422),
        ({"expires_at": None}, 422),
        ({"justification": "because"}, 422),
        ({"images": []}, 422),
        ({"images": ["a b"]}, 422),
        ({"project": "theirs"}, 404),
        ({"approved_by": "me"}, 422),
    ],
)
def test_what_is_no_exemption_is_refused(ada: Api, changes: dict[str, Any], status: int) -> None:
    answer = ada("POST", "/exemptions", {**ASKED, **changes})
    assert answer.status_code == status, answer.text
    assert ada("GET", "/exemptions").json["items"] == []


def test_one_projects_exemption_accepts_nothing_in_another(
    app: OpenAPI, database: Database, ada: Api, grace: Api, judged: Callable[..., Any]
) -> None:
    stranger = calling(app, database, person(database, "eve", "developer", member_of=["elsewhere"]))
    identifier = asked(stranger, images=["**"], project="elsewhere")
    grace("POST", f"/exemptions/{identifier}/approve", {})
    assert judged()["verdict"] == "deny"
    for method, path in (("GET", ""), ("POST", "/revoke")):
        answer = ada(method, f"/exemptions/{identifier}{path}", {} if method == "POST" else None)
        assert answer.status_code == 404
    assert ada("GET", "/exemptions").json["items"] == []


def test_only_its_owner_or_who_may_approve_ends_it(
    app: OpenAPI, database: Database, ada: Api, grace: Api, judged: Callable[..., Any]
) -> None:
    colleague = calling(app, database, person(database, "bob", "developer", member_of=["default"]))
    identifier = asked(ada)
    assert colleague("POST", f"/exemptions/{identifier}/revoke", {}).status_code == 403
    assert grace("POST", f"/exemptions/{identifier}/revoke", {}).status_code == 200


def test_lists_go_on_and_filter(ada: Api, grace: Api, judged: Callable[..., Any]) -> None:
    made = [asked(ada, subject=f"CVE-2026-{n}") for n in range(5)]
    first = ada("GET", "/exemptions?limit=3").json
    second = ada("GET", f"/exemptions?limit=3&cursor={first['next_cursor']}").json
    assert [e["id"] for e in first["items"] + second["items"]] == made[::-1]
    assert [e["id"] for e in ada("GET", "/exemptions?subject=CVE-2026-3").json["items"]] == [made[3]]
    assert len(ada("GET", "/exemptions?ends_within_days=31").json["items"]) == 5
    assert ada("GET", "/exemptions?ends_within_days=29").json["items"] == []
