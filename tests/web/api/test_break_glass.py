"""Break glass: a named person lets a digest through for hours; every answer says so; nobody else may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask_openapi3.openapi import OpenAPI

from scanner.cli import cli
from scanner.config import Settings
from scanner.store import audit, policies
from scanner.store.schema import break_glass as table
from scanner.store.session import Database
from tests.kubernetes_objects import review
from tests.servers import Dockwarden
from tests.web.adapters.test_kubernetes import BAD, BAD_IMAGE, CLEAN, GOOD_IMAGE, NEW_IMAGE, POLICY, limited
from tests.web.conftest import Api, Worker
from tests.web.people import calling, person

REASON = "the shop is down, and the fix is being built"
NEW = NEW_IMAGE.partition("@")[2]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, break_glass=("kim",), admission_wait_seconds=0.0, pull_wait_seconds=0.0)


@pytest.fixture(autouse=True)
def known(database: Database, api: Api, worker: Worker) -> None:
    with database.session() as session:
        policies.put(session, "cluster", POLICY, "test")
    for found, image in ((CLEAN, GOOD_IMAGE), (BAD, BAD_IMAGE)):
        api("POST", "/scans", {"image": image})
        worker.finish(found)


@pytest.fixture
def kim(app: OpenAPI, database: Database) -> Api:
    """The person whom the setting names."""
    return calling(app, database, person(database, "kim", "security"))


def opened(kim: Api, digest: str = BAD.digest, **more: object) -> dict[str, str]:
    answer = kim("POST", "/break-glass", {"digest": digest, "reason": REASON} | more)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json
    return found


def test_the_gate_says_warn_and_who_made_it_so(kim: Api, api: Api) -> None:
    assert api("POST", "/gate", {"image": BAD_IMAGE}).json["verdict"] == "deny"
    found = opened(kim, hours=2)
    answer = api("POST", "/gate", {"image": BAD_IMAGE}).json
    assert (answer["verdict"], answer["undecided"]) == ("warn", False)
    first, *others = answer["reasons"]
    assert first["rule"] == "break-glass"
    assert first["message"].startswith("break glass: kim lets it through until ")
    assert first["message"].endswith(REASON)
    assert others, "what the policy says is still told"
    assert datetime.fromisoformat(answer["valid_until"]) == datetime.fromisoformat(found["until"])
    workload = {"Name": "w", "Config": {"Image": BAD_IMAGE}, "HostConfig": {"Privileged": True}}
    assert api("POST", "/gate", {"image": BAD_IMAGE, "workload": workload}).json["verdict"] == "warn"
    assert api("POST", "/gate", {"image": GOOD_IMAGE}).json["verdict"] == "allow"


def test_it_ends_by_hand_and_by_time(kim: Api, api: Api, database: Database) -> None:
    found = opened(kim)
    assert kim("POST", f"/break-glass/{found['id']}/end", {}).json["active"] is False
    assert api("POST", "/gate", {"image": BAD_IMAGE}).json["verdict"] == "deny"
    assert kim("POST", f"/break-glass/{found['id']}/end", {}).status_code == 404
    opened(kim)
    with database.session() as session:  # its time has passed, by the database's clock
        session.execute(table.update().where(table.c.ended_at.is_(None)).values(until=1.0))
    assert api("POST", "/gate", {"image": BAD_IMAGE}).json["verdict"] == "deny"
    assert [each["active"] for each in kim("GET", "/break-glass").json["items"]] == [False, False]


def test_what_was_never_scanned_is_let_through_too(kim: Api, api: Api) -> None:
    assert api("POST", "/gate", {"image": NEW_IMAGE}).status_code == 202
    opened(kim, NEW)
    assert api("POST", "/gate", {"image": NEW_IMAGE}).json["verdict"] == "warn"


def test_every_door_lets_it_through_and_says_so(kim: Api, app: OpenAPI, make_token: Callable[..., str]) -> None:
    client = app.test_client()
    admission, pull = (make_token(scope) for scope in ("admission", "pull"))

    def kubernetes(image: str) -> dict[str, object]:
        answer = client.post(f"/adapters/kubernetes/admit/{admission}", json=review(limited(image)))
        found: dict[str, object] = answer.json["response"]
        return found

    def docker(image: str) -> dict[str, object]:
        body = {"host": "h", "operation": "image pull", "images": [image]}
        headers = {"Authorization": f"Bearer {admission}"}
        found: dict[str, object] = client.post("/adapters/docker/authorize", json=body, headers=headers).json
        return found

    def registry(uri: str) -> int:
        headers = {"Authorization": f"Bearer {pull}", "X-Original-URI": uri, "X-Original-Method": "GET"}
        return client.get(
            "/adapters/registry/authorize?registry=registry.example.com&strict=1", headers=headers
        ).status_code

    manifest, layer = f"/v2/shop/cart/manifests/{BAD.digest}", BAD.images[0].image.layers[0].digest
    with_registry = calling_api(app, make_token)
    assert with_registry("POST", "/registries", {"host": "registry.example.com"}).status_code == 201
    assert (kubernetes(BAD_IMAGE)["allowed"], docker(BAD_IMAGE)["allowed"], registry(manifest)) == (False, False, 403)
    opened(kim)
    opened(kim, NEW)
    answer = kubernetes(BAD_IMAGE)
    assert answer["allowed"] is True
    assert "break glass: kim" in str(answer["warnings"])
    assert kubernetes(NEW_IMAGE)["allowed"] is True
    told = docker(BAD_IMAGE)
    assert (told["allowed"], told["verdict"]) == (True, "warn")
    assert registry(manifest) == 200
    assert registry(f"/v2/shop/cart/blobs/{layer}") == 200


def calling_api(app: OpenAPI, make_token: Callable[..., str]) -> Api:
    return Api(app.test_client(), make_token())


def test_only_named_persons_may(app: OpenAPI, database: Database, api: Api) -> None:
    body = {"digest": BAD.digest, "reason": REASON}
    other = calling(app, database, person(database, "lee", "admin"))
    for caller in (api, other):
        answer = caller("POST", "/break-glass", body)
        assert (answer.status_code, answer.json["reason"]) == (403, "not_allowed")
        assert "DOCKWARDEN_BREAK_GLASS" in answer.json["hint"]
    developer = calling(app, database, person(database, "kim", "developer", member_of=["ours"]))
    assert developer("POST", "/break-glass", body).status_code == 403, "confined to projects"


def test_what_is_asked_for_is_bounded(kim: Api) -> None:
    for wrong in (
        {"hours": 5},
        {"hours": 0},
        {"reason": "short"},
        {"digest": "latest"},
        {"digest": "sha256:" + "G" * 64},
    ):
        answer = kim("POST", "/break-glass", {"digest": BAD.digest, "reason": REASON} | wrong)
        assert answer.status_code == 422, wrong


def test_it_is_audited(kim: Api, database: Database) -> None:
    found = opened(kim)
    kim("POST", f"/break-glass/{found['id']}/end", {})
    with database.read() as session:
        entries = audit.list_entries(session, audit.Filter()).items
    actions = {entry.action: entry for entry in entries if entry.action.startswith("break_glass")}
    assert set(actions) == {"break_glass.begin", "break_glass.end"}
    assert actions["break_glass.begin"].object == BAD.digest
    assert actions["break_glass.begin"].detail["reason"] == REASON


def test_the_page_shows_it_and_offers_it_to_named_persons_only(kim: Api, app: OpenAPI, database: Database) -> None:
    opened(kim)
    lee = calling(app, database, person(database, "lee", "security"))
    for caller, offered in ((kim, True), (lee, False)):
        headers = {"Authorization": f"Bearer {caller.token}", "Accept": "text/html"}
        text = caller.client.get("/enforcement", headers=headers).text
        assert REASON in text
        assert ("Let a digest through" in text) is offered
    headers = {"Authorization": f"Bearer {kim.token}"}
    form = {"digest": NEW, "reason": REASON.replace(" ", "\r\n", 1), "hours": "2"}  # the field has two rows
    assert kim.client.post("/enforcement/break-glass", headers=headers, data=form).status_code == 303
    wrong = kim.client.post("/enforcement/break-glass", headers=headers, data=form | {"hours": "9"})
    assert wrong.status_code == 422
    assert "up to 4 hours" in wrong.text
    found = kim("GET", "/break-glass").json["items"]
    assert {each["digest"] for each in found} == {BAD.digest, NEW}
    assert {each["reason"] for each in found} == {REASON}
    path = f"/enforcement/break-glass/{found[0]['id']}/end"
    assert kim.client.post(path, headers=headers).status_code == 303


def test_the_command(server: Dockwarden, tmp_path: Path) -> None:
    """The server of the tests names nobody: the command says so, and lists what there is."""
    environment = {"DOCKWARDEN_TOKEN": server.token, "DOCKWARDEN_SERVER": server.url}
    refused = CliRunner().invoke(cli, ["break-glass", "open", BAD.digest, "--reason", REASON], env=environment)
    assert refused.exit_code != 0
    assert "break glass" in str(refused.exception)
    listed = CliRunner().invoke(cli, ["break-glass", "list"], env=environment)
    assert (listed.exit_code, listed.stdout, listed.stderr) == (0, "", "no digest was let through yet\n")
