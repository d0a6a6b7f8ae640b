"""Tokens, users, projects, registries, policies: who may change what, and that secrets only go in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scanner.model.finding import Severity
from scanner.services import inventory
from scanner.store import audit, deliveries, policies, projects, registries
from scanner.store.session import Database
from tests.actors import ownerless
from tests.scanner.store import factories as make
from tests.web.api.test_gate import policy
from tests.web.conftest import KEY, Api, Worker

PASSWORD = "a password nobody guesses"


# Tokens


def test_a_tokens_text_is_shown_once(api: Api, call: Callable[..., Api]) -> None:
    made = api("POST", "/tokens", {"name": "ci", "scopes": ["gate", "scan"], "days": 30})
    assert made.status_code == 201
    text = made.json["token"]
    assert text.startswith(f"dw_{made.json['prefix']}_")
    for path in ("/tokens", made.headers["Location"], "/audit-log"):
        assert text not in api("GET", path).text
    new = Api(api.client, text)
    assert new("POST", "/scans", {"image": "a/b:1"}).status_code == 202
    assert new("GET", "/images").status_code == 403


def test_a_revoked_token_is_dead_at_once(api: Api) -> None:
    made = api("POST", "/tokens", {"name": "ci", "scopes": ["read"]}).json
    new = Api(api.client, made["token"])
    assert new("GET", "/images").status_code == 200
    assert api("DELETE", f"/tokens/{made['id']}").json["revoked_at"]
    assert new("GET", "/images").status_code == 401


def test_nobody_makes_a_token_that_may_more_than_they(call: Callable[..., Api], database: Database) -> None:
    with database.session() as session:
        for name in ("mine", "theirs"):
            projects.create(session, name)
    manager = call("manage", "read", projects=["mine"])
    assert manager("POST", "/tokens", {"name": "t", "scopes": ["read", "audit"]}).status_code == 403
    assert manager("POST", "/tokens", {"name": "t", "scopes": ["read"], "projects": ["theirs"]}).status_code == 404
    made = manager("POST", "/tokens", {"name": "t", "scopes": ["read"]})
    assert (made.status_code, made.json["projects"]) == (201, ["mine"])


def test_a_token_does_not_outlive_the_one_that_made_it(call: Callable[..., Api]) -> None:
    first = call()("POST", "/tokens", {"name": "a", "scopes": ["manage", "read"], "days": 1}).json
    child = Api(call().client, first["token"])("POST", "/tokens", {"name": "b", "scopes": ["read"], "days": 365}).json
    assert child["expires_at"] == first["expires_at"]


def test_the_tokens_of_other_projects_are_not_there(api: Api, call: Callable[..., Api], database: Database) -> None:
    with database.session() as session:
        projects.create(session, "mine")
    everywhere = api("POST", "/tokens", {"name": "all", "scopes": ["read"]}).json["id"]
    confined = call("manage", projects=["mine"])
    assert {t["name"] for t in confined("GET", "/tokens").json["items"]} == {"test"}
    assert confined("GET", f"/tokens/{everywhere}").status_code == 404
    assert confined("DELETE", f"/tokens/{everywhere}").status_code == 404
    assert api("GET", f"/tokens/{everywhere}").json["revoked_at"] is None


def test_use_is_noted(api: Api) -> None:
    api("GET", "/images")
    (token,) = api("GET", "/tokens").json["items"]
    assert token["last_used_at"] is not None


# Users


def test_a_user_is_added_and_disabled(api: Api) -> None:
    made = api("POST", "/users", {"name": "ada", "password": PASSWORD, "role": "developer"})
    assert made.status_code == 201
    assert PASSWORD not in made.text
    assert api("POST", "/users", {"name": "ada", "password": PASSWORD}).status_code == 409
    changed = api("PUT", f"/users/{made.json['id']}/disabled", {"disabled": True})
    assert changed.json["disabled"] is True
    assert [u["name"] for u in api("GET", "/users").json["items"]] == ["ada"]


def test_who_may_not_everything_makes_no_admin(call: Callable[..., Api]) -> None:
    manager = call("manage", "read")
    assert manager("POST", "/users", {"name": "eve", "password": PASSWORD, "role": "admin"}).status_code == 403
    assert manager("POST", "/users", {"name": "eve", "password": PASSWORD, "role": "viewer"}).status_code == 201


@pytest.mark.parametrize("extra", [{"disabled": True}, {"id": "x"}, {"password_hash": "x"}, {"role": "root"}])
def test_members_that_are_not_the_callers_to_set(api: Api, extra: dict[str, object]) -> None:
    assert api("POST", "/users", {"name": "eve", "password": PASSWORD, **extra}).status_code == 422
    assert api("GET", "/users").json["items"] == []


def test_a_short_password_is_refused_and_not_repeated(api: Api) -> None:
    answer = api("POST", "/users", {"name": "eve", "password": "hunter2"})
    assert answer.status_code == 422
    assert "hunter2" not in answer.text


def test_whoever_is_confined_changes_nothing_that_is_everybodys(call: Callable[..., Api], database: Database) -> None:
    with database.session() as session:
        projects.create(session, "mine")
        policies.put(session, "all", policy(), "test")
    confined = call(projects=["mine"])
    refused = [
        ("POST", "/users", {"name": "eve", "password": PASSWORD}),
        ("POST", "/projects", {"name": "more"}),
        ("POST", "/registries", {"host": "evil.example"}),
        ("PUT", "/policies/all", {"text": policy()}),
        ("PUT", "/policies/all/enabled", {"enabled": False}),
        ("GET", "/audit-log", None),
    ]
    for method, path, body in refused:
        assert confined(method, path, body).status_code == 403, path


# Registries


def test_a_registrys_password_only_goes_in(api: Api, database: Database) -> None:
    body = {
        "host": "registry.example.com",
        "username": "robot",
        "password": "c4nary-password",
        "aliases": ["localhost:5000"],
    }
    made = api("POST", "/registries", body)
    assert made.status_code == 201
    path = made.headers["Location"]
    texts = [made.text, api("GET", path).text, api("GET", "/registries").text, api("GET", "/audit-log").text]
    assert all("c4nary" not in text for text in texts)
    assert api("GET", path).json["has_password"] is True
    with database.read() as session:
        password = registries.password(session, made.json["id"], KEY)
    assert password is not None
    assert password.reveal() == "c4nary-password"
    assert api("PATCH", path, {"password": ""}).json["has_password"] is False


def test_a_host_cannot_be_changed_to_send_the_password_elsewhere(api: Api) -> None:
    path = api("POST", "/registries", {"host": "registry.example.com"}).headers["Location"]
    assert api("PATCH", path, {"host": "evil.example"}).status_code == 422
    assert api("PATCH", path, {"username": "robot"}).json["username"] == "robot"


def test_a_registry_with_webhooks_stays(api: Api, database: Database) -> None:
    made = api("POST", "/registries", {"host": "registry.example.com"})
    with database.session() as session:
        deliveries.create_hook(session, "h", "distribution", made.json["id"], KEY)
    assert api("DELETE", made.headers["Location"]).status_code == 409
    other = api("POST", "/registries", {"host": "other.example.com"})
    assert api("DELETE", other.headers["Location"]).status_code == 204
    assert api("GET", other.headers["Location"]).status_code == 404
    assert api("POST", "/registries", {"host": "registry.example.com"}).status_code == 409


@pytest.mark.parametrize(
    "host", ["", "https://x.example", "x.example/path", "user@x.example", "a b", "single", "[::1]"]
)
def test_what_is_no_host(api: Api, host: str) -> None:
    assert api("POST", "/registries", {"host": host}).status_code == 422


# Policies


def test_a_policy_is_written_read_and_edited(api: Api) -> None:
    written = api("PUT", "/policies/all", {"text": policy()})
    assert (written.status_code, written.headers["ETag"]) == (201, '"1"')
    read = api("GET", "/policies/all")
    assert (read.json["text"], read.json["version"]) == (policy(), 1)
    edited = api("PUT", "/policies/all", {"text": policy(action="warn")}, headers={"If-Match": read.headers["ETag"]})
    assert (edited.status_code, edited.json["version"]) == (200, 2)
    assert api("GET", "/policies/all/versions/1").json["text"] == policy()
    assert [v["version"] for v in api("GET", "/policies/all/versions").json["items"]] == [2, 1]


@pytest.mark.parametrize(
    ("if_match", "status"), [(None, 428), ('"2"', 412), ('"x"', 412), ("", 428), ('"1"', 200), ("*", 200)]
)
def test_two_who_edit_at_once(api: Api, if_match: str | None, status: int) -> None:
    api("PUT", "/policies/all", {"text": policy()})
    headers = {"If-Match": if_match} if if_match is not None else {}
    assert api("PUT", "/policies/all", {"text": policy(action="warn")}, headers=headers).status_code == status


def test_an_etag_of_a_policy_that_there_is_not(api: Api) -> None:
    assert api("PUT", "/policies/all", {"text": policy()}, headers={"If-Match": '"1"'}).status_code == 412


def test_a_typo_is_told_with_line_and_column(api: Api) -> None:
    text = policy().replace("severity", "severty")
    answer = api("PUT", "/policies/all", {"text": text})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"].startswith("/line/9/")
    checked = api("POST", "/policies/all/validate", {"text": text}).json
    assert checked["valid"] is False
    assert checked["problems"][0]["line"] == 9
    assert api("POST", "/policies/all/validate", {"text": policy()}).json == {
        "valid": True,
        "name": "all",
        "problems": [],
    }
    assert api("GET", "/policies").json["items"] == []


def test_a_document_of_another_name(api: Api) -> None:
    assert api("PUT", "/policies/other", {"text": policy()}).status_code == 422


def test_who_would_be_blocked_and_who_released(api: Api, worker: Worker) -> None:
    api("PUT", "/policies/all", {"text": policy(action="warn")})
    bad = make.report(
        "bad",
        packages=[make.package(1)],
        vulnerabilities=[make.vulnerability(1, make.package(1), severity=Severity.CRITICAL)],
    )
    for found in (bad, make.report("clean", packages=[make.package(1)])):
        api("POST", "/scans", {"image": f"{make.REPOSITORY}@{found.digest}"})
        worker.finish(found)
    tried = api("POST", "/policies/all/simulate", {"text": policy()}).json
    assert [flip["digest"] for flip in tried["newly_denied"]] == [bad.digest]
    assert tried["newly_denied"][0]["rules"] == ["no-criticals"]
    assert (tried["newly_released"], tried["unchanged"], tried["examined"]) == ([], 1, 2)
    assert api("GET", "/policies/all").json["version"] == 1
    api("PUT", "/policies/all", {"text": policy()}, headers={"If-Match": "*"})
    back = api("POST", "/policies/all/simulate", {"text": policy(action="warn")}).json
    assert [flip["digest"] for flip in back["newly_released"]] == [bad.digest]


def test_what_runs_that_would_be_blocked_and_released(api: Api, database: Database) -> None:
    running = [
        {"name": name, "image": f"{make.REPOSITORY}:1", "source": "kubernetes", "privileged": name == "privileged"}
        for name in ("privileged", "plain")
    ]
    snapshot = inventory.Snapshot("production", "kubernetes", "cluster", 1, running)
    inventory.report(database, ownerless("agent", "inventory"), snapshot, "trivy")
    strict, lax = (OF_WORKLOADS % action for action in ("deny", "warn"))
    api("PUT", "/policies/running", {"text": lax})
    tried = api("POST", "/policies/running/simulate/workloads", {"text": strict}).json
    assert [flip["workload"] for flip in tried["newly_denied"]] == ["privileged"]
    assert tried["newly_denied"][0]["rules"] == ["privileged"]
    assert tried["newly_denied"][0]["environment"] == "production"
    assert (tried["newly_released"], tried["unchanged"], tried["examined"]) == ([], 1, 2)
    first = api("POST", "/policies/running/simulate/workloads", {"text": strict, "limit": 1}).json
    more = {"text": strict, "cursor": first["next_cursor"]}
    rest = api("POST", "/policies/running/simulate/workloads", more).json
    assert (first["examined"], rest["examined"], rest["next_cursor"]) == (1, 1, None)
    elsewhere = strict.replace("rules:", "match: {environments: [staging]}\nrules:")
    (flip,) = api("POST", "/policies/running/simulate/workloads", {"text": elsewhere}).json["newly_denied"]
    assert flip["rules"] == ["dangerous-workload"], "without a policy of its own, production has the default one"
    api("PUT", "/policies/running", {"text": strict}, headers={"If-Match": "*"})
    back = api("POST", "/policies/running/simulate/workloads", {"text": lax}).json
    assert [flip["workload"] for flip in back["newly_released"]] == ["privileged"]


OF_WORKLOADS = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: running}
rules: [{id: privileged, check: privileged-container, action: %s}]
"""


def test_every_change_is_in_the_audit_log(api: Api, database: Database) -> None:
    api("PUT", "/policies/all", {"text": policy()})
    api("POST", "/projects", {"name": "shop"})
    token = api("POST", "/tokens", {"name": "t", "scopes": ["read"]}).json["id"]
    api("DELETE", f"/tokens/{token}")
    entries = api("GET", "/audit-log").json["items"]
    assert [e["action"] for e in entries] == ["token.revoke", "token.create", "project.create", "policy.write"]
    assert {e["actor"] for e in entries} == {"token test"}
    assert {e["address"] for e in entries} == {"127.0.0.1"}
    with database.read() as session:
        assert audit.verify(session).broken is None


def test_a_webhook_is_rotated_disabled_and_removed(api: Api) -> None:
    registry = api("POST", "/registries", {"host": "registry.example.com"}).json["id"]
    made = api("POST", "/api/v1/webhooks", {"registry": registry, "header": "X-Registry-Token"}).json
    assert (made["header"], made["rotating_since"], made["last_delivery"]) == ("X-Registry-Token", None, None)
    place = f"/api/v1/webhooks/{made['id']}"
    rotated = api("POST", f"{place}/rotate").json
    assert rotated["secret"] != made["secret"]
    assert rotated["rotating_since"]
    again = api("POST", f"{place}/rotate")
    assert (again.status_code, again.json["reason"]) == (409, "rotating")
    assert api("POST", f"{place}/finish-rotation", {"keep": "neither"}).status_code == 422
    finished = api("POST", f"{place}/finish-rotation", {"keep": "new"})
    assert finished.json["rotating_since"] is None
    assert "secret" not in finished.json
    assert api("POST", f"{place}/finish-rotation", {}).json["reason"] == "not_rotating"
    assert api("DELETE", place).json["disabled"] is True
    assert api("POST", f"{place}/enable").json["disabled"] is False
    assert api("DELETE", f"/registries/{registry}").json["reason"] == "in_use"
    assert api("POST", f"{place}/remove").status_code == 204
    assert api("GET", place).status_code == 404
    assert api("DELETE", f"/registries/{registry}").status_code == 204


def test_a_refused_member_is_named(api: Api) -> None:
    """By the rules of the use case too, which the document's schema cannot say."""
    answer = api("POST", "/registries", {"host": "registry.example.com", "ca_pem": "not a certificate"})
    assert answer.status_code == 422
    assert [problem["pointer"] for problem in answer.json["errors"]] == ["/ca_pem"]
