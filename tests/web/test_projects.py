"""Projects: members see theirs, and the repositories that they own by pattern; nobody sees another's, by whatever
way.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.config import Settings
from scanner.errors import ScannerError, UsageError
from scanner.store import accounts, projects, registries
from scanner.store.session import Database
from scanner.worker.server_scan import configured_access
from tests.scanner.store import factories as make
from tests.web.conftest import KEY, Api, Worker
from tests.web.people import calling, person

HOST = "registry.example.com"


@pytest.fixture
def shared(database: Database) -> None:
    """One registry, and two projects that own parts of it."""
    with database.session() as session:
        registries.add(session, HOST, KEY)
        projects.create(session, "shop", patterns=[f"{HOST}/shop/**"])
        projects.create(session, "vault", patterns=[f"{HOST}/shop/vault", f"{HOST}/vault/**"])


@pytest.mark.usefixtures("shared")
def test_a_repository_belongs_to_the_most_specific_pattern_else_to_its_registry(database: Database) -> None:
    with database.read() as session:
        names = ("shop/cart", "shop/a/b", "shop/vault", "shop/vault/x", "vault/x", "other/x")
        found = projects.owners(session, [f"{HOST}/{name}" for name in names])
    assert list(found.values()) == ["shop", "shop", "vault", "shop", "vault", "default"]


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    ("project", "repository", "reached"),
    [
        ("shop", "shop/cart", True),
        ("shop", "shop/vault", False),
        ("vault", "shop/vault", True),
        ("default", "other/x", True),
        ("default", "vault/x", False),
        ("shop", "other/x", False),
    ],
)
def test_a_scan_pulls_only_what_its_project_owns(
    database: Database, settings: Settings, project: str, repository: str, reached: bool
) -> None:
    access = configured_access(settings, database, KEY, project, repository)
    if reached:
        access(HOST)
    else:
        with pytest.raises(UsageError) as refused:
            access(HOST)
        assert refused.value.reason == "registry_not_configured"


@pytest.mark.usefixtures("shared")
def test_what_is_asked_for_goes_to_the_project_that_owns_it(app: OpenAPI, database: Database, api: Api) -> None:
    ada = calling(app, database, person(database, "ada", "developer", member_of=["shop"]))
    assert ada("POST", "/scans", {"image": f"{HOST}/shop/cart:1"}).json["project"] == "shop"
    assert api("POST", "/scans", {"image": f"{HOST}/vault/x:1"}).json["project"] == "vault"
    assert ada("POST", "/scans", {"image": f"{HOST}/vault/x:1", "project": "vault"}).status_code == 404
    # Whether somebody owns it is not told: it is recorded as ada's, and ends as what her project cannot reach.
    assert ada("POST", "/scans", {"image": f"{HOST}/vault/x:1"}).json["project"] == "shop"


@pytest.mark.usefixtures("shared")
def test_images_move_with_the_pattern(app: OpenAPI, database: Database, api: Api, worker: Worker) -> None:
    ada = calling(app, database, person(database, "ada", "viewer", member_of=["shop"]))
    found = make.report("moving", packages=[make.package(1)])
    api("POST", "/scans", {"image": f"{HOST}/shop/cart:1"})
    worker.finish(found)
    assert ada("GET", f"/images/{found.digest}").status_code == 200
    changed = api("PATCH", "/projects/vault", {"patterns": [f"{HOST}/shop/cart"]})
    assert changed.status_code == 200
    assert ada("GET", f"/images/{found.digest}").status_code == 404
    assert ada("GET", "/images").json["items"] == []
    assert api("GET", "/images").json["items"][0]["project"] == "vault"
    (entry,) = [e for e in api("GET", "/audit-log").json["items"] if e["action"] == "project.change"]
    assert entry["detail"]["patterns"]["after"] == [f"{HOST}/shop/cart"]


@pytest.mark.usefixtures("shared")
def test_two_projects_do_not_own_the_same(api: Api) -> None:
    taken = api("PATCH", "/projects/vault", {"patterns": [f"{HOST}/shop/**"]})
    assert (taken.status_code, taken.json["reason"]) == (409, "in_use")
    assert api("PATCH", "/projects/vault", {"patterns": ["**"]}).status_code == 422
    assert api("PATCH", "/projects/nowhere", {"patterns": []}).status_code == 404


def test_membership_counts_at_once_for_users_and_their_tokens(app: OpenAPI, database: Database, api: Api) -> None:
    ada_id = person(database, "ada", "developer")
    ada = calling(app, database, ada_id)
    api("POST", "/projects", {"name": "shop"})
    assert ada("GET", "/projects").json["items"] == []
    assert ada("POST", "/scans", {"image": "a/b:1", "project": "shop"}).status_code == 404
    assert ada("POST", "/gate", {"image": "a/b:1", "project": "shop"}).status_code == 404
    assert api("POST", "/projects/shop/members", {"user": ada_id}).status_code == 204
    assert [m["name"] for m in api("GET", "/projects/shop/members").json["items"]] == ["ada"]
    assert [p["name"] for p in ada("GET", "/projects").json["items"]] == ["shop"]
    assert ada("POST", "/gate", {"image": "a/b:1", "project": "shop"}).status_code == 202
    assert api("DELETE", f"/projects/shop/members/{ada_id}").status_code == 204
    assert ada("GET", "/projects/shop/members").status_code == 404
    assert ada("POST", "/gate", {"image": "a/b:1", "project": "shop"}).status_code == 404


@pytest.mark.parametrize("role", ["viewer", "developer"])
def test_a_member_of_nothing_sees_nothing(
    app: OpenAPI, database: Database, api: Api, worker: Worker, role: str
) -> None:
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:1"})
    worker.finish(make.report("some", packages=[make.package(1)]))
    nobody = calling(app, database, person(database, "n", role))
    for path in ("/images", "/scans", "/projects", "/tags", "/events", "/exemptions"):
        assert nobody("GET", path).json["items"] == [], path


def test_a_gate_token_of_who_left_the_project_gets_no_decision(
    app: OpenAPI, database: Database, api: Api, worker: Worker
) -> None:
    ada_id = person(database, "ada", "developer", member_of=["default"])
    ada = calling(app, database, ada_id)
    found = make.report("some", packages=[make.package(1)])
    pinned = {"image": f"{make.REPOSITORY}@{found.digest}"}
    api("POST", "/scans", pinned)
    worker.finish(found)
    assert ada("POST", "/gate", pinned).status_code == 200
    with database.session() as session:
        projects.remove_member(session, "default", ada_id)
    assert ada("POST", "/gate", pinned).status_code == 404


def test_a_projects_policy_judges_its_own_images_only(
    app: OpenAPI, database: Database, api: Api, worker: Worker, shared: None
) -> None:
    from tests.web.api.test_gate import policy

    ada = calling(app, database, person(database, "ada", "viewer", member_of=["shop"]))
    text = policy("vault-only").replace("vulnerability: {severity: [critical]}", "when: 'true'")
    made = api("PUT", "/policies/vault-only", {"text": text, "project": "vault"})
    assert (made.status_code, made.json["project"]) == (201, "vault")
    verdicts = []
    for name in ("shop/cart", "vault/x"):
        found = make.report(name, packages=[make.package(1)])
        api("POST", "/scans", {"image": f"{HOST}/{name}@{found.digest}"})
        worker.finish(found)
        reasons = api("POST", "/gate", {"image": f"{HOST}/{name}@{found.digest}"}).json["policy"]
        verdicts.append(reasons == "vault-only")
    assert verdicts == [False, True]
    assert "vault-only" not in [p["name"] for p in ada("GET", "/policies").json["items"]]
    for path in ("", "/versions", "/versions/1"):
        assert ada("GET", f"/policies/vault-only{path}").status_code == 404


def test_a_confined_security_token_writes_its_projects_policies_only(call: Callable[..., Api], shared: None) -> None:
    from tests.web.api.test_gate import policy

    confined = call("read", "policy", projects=["shop"])
    assert confined("PUT", "/policies/mine", {"text": policy("mine"), "project": "shop"}).status_code == 201
    assert confined("PUT", "/policies/theirs", {"text": policy("theirs"), "project": "vault"}).status_code == 404
    assert confined("PUT", "/policies/all", {"text": policy("all")}).status_code == 403


EASY = (
    "short",
    "aaaaaaaaaaaaaaaa",
    "ada-lovelace-123",
    "x" * 1001,
    "password1234",
    "P@ssw0rd2026",
    "qwertyuiop12",
    "dockwarden12",
    "letmeinletmein",
)


def test_a_password_is_not_the_first_thing_to_be_guessed(database: Database) -> None:
    with database.session() as session:
        for password in EASY:
            with pytest.raises(ScannerError) as refused:
                accounts.create_user(session, "ada-lovelace", password, "viewer")
            assert refused.value.reason == "bad_password"
