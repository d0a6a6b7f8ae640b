"""Settings pages: every form is an operation of the API, refused in words, and a secret is shown once."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.config import Settings
from scanner.model.actor import SERVICE
from scanner.services import retention
from scanner.store import accounts, audit, jobs, projects
from scanner.store.session import Database
from tests.web.pages.test_exemptions import Somebody
from tests.web.pages.test_policies import Form
from tests.web.people import PASSWORD, person


@pytest.fixture
def admin(app: OpenAPI, database: Database) -> Somebody:
    person(database, "ada", "admin")
    return Somebody(app, "ada")


def test_the_server_as_it_runs(admin: Somebody) -> None:
    seen = admin.see("/settings")
    assert "SQLite" in seen
    assert "Database" in seen
    assert "secret" not in seen.lower()


def test_storage_is_shown_and_a_pruning_requested_once(admin: Somebody, database: Database) -> None:
    seen = admin.see("/settings/storage")
    assert "Nothing was pruned yet" in seen
    assert "DOCKWARDEN_RETENTION_SCANS" in seen
    for _ in range(2):
        assert admin("/settings/storage/prune").status_code == 303
    with database.read() as session:
        (asked,) = jobs.list_jobs(session, [jobs.RETENTION])
        requested = audit.list_entries(session, audit.Filter(action="retention.request")).items
    assert asked.requested_by == "ada"
    assert len(requested) == 2
    assert "not yet: queued" in admin.see("/settings/storage")
    with database.session() as session:
        held = jobs.claim(session, "w", {jobs.RETENTION: None}, 60)
    assert held
    retention.Pruning(services_of(admin), database, held, SERVICE, rest=lambda seconds: None).run()
    assert "0 rows removed" in admin.see("/settings/storage")


def services_of(somebody: Somebody) -> Settings:
    found: Settings = somebody.client.application.extensions["dockwarden"].settings
    return found


def test_people_come_change_and_are_kept_out(admin: Somebody, app: OpenAPI, database: Database) -> None:
    assert admin("/settings/people", name="vera", password=PASSWORD, role="viewer").status_code == 303
    with database.read() as session:
        vera = accounts.find_user(session, "vera")
    assert vera is not None
    visitor = Somebody(app, "vera")
    assert admin(f"/settings/people/{vera.id}/role", role="developer").status_code == 303
    assert visitor.client.get("/images", headers=visitor.headers).status_code == 303  # another role signs out
    assert admin(f"/settings/people/{vera.id}/disable").status_code == 303
    assert "disabled" in admin.see("/settings/people")
    assert admin(f"/settings/people/{vera.id}/enable").status_code == 303
    assert admin(f"/settings/people/{vera.id}/sign-out").status_code == 303
    with database.read() as session:
        actions = [entry.action for entry in audit.list_entries(session).items if entry.action.startswith("user.")]
    assert actions == ["user.sign_out", "user.enable", "user.disable", "user.role", "user.create"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "x y", "password": PASSWORD, "role": "viewer"}, "name"),
        ({"name": "vera", "password": "short", "role": "viewer"}, "password"),
        ({"name": "vera", "password": PASSWORD, "role": "king"}, "role"),
        ({"name": "ada", "password": PASSWORD, "role": "viewer"}, "already"),
    ],
)
def test_a_person_that_cannot_be(admin: Somebody, given: dict[str, str], message: str) -> None:
    answer = admin("/settings/people", **given)
    assert answer.status_code == 422
    assert message in answer.text
    assert given["password"] not in answer.text


def test_nobody_changes_their_own_role(admin: Somebody, database: Database) -> None:
    with database.read() as session:
        ada = accounts.find_user(session, "ada")
    assert ada is not None
    answer = admin(f"/settings/people/{ada.id}/role", role="viewer")
    assert answer.status_code == 422
    assert "your own role" in answer.text


def test_projects_and_members(admin: Somebody, database: Database) -> None:
    person(database, "dora", "developer")
    assert (
        admin("/settings/projects", name="shop", patterns="r.example.com/shop/**\nr.example.com/cart").status_code
        == 303
    )
    with database.read() as session:
        dora = accounts.find_user(session, "dora")
    assert dora is not None
    assert admin("/settings/projects/shop/members", user=dora.id).status_code == 303
    assert "remove" in admin.see("/settings/projects")
    assert (
        admin("/settings/projects/shop", description="<b>the shop</b>", patterns="r.example.com/s/*").status_code == 303
    )
    with database.read() as session:
        assert projects.get(session, "shop").patterns == ("r.example.com/s/*",)
        assert [m.name for m in projects.members(session, "shop")] == ["dora"]
    assert "<b>the" not in admin.see("/settings/projects")
    assert admin("/settings/projects/shop/members", user=dora.id, remove="1").status_code == 303
    assert "remove" not in admin.see("/settings/projects")
    wrong = admin("/settings/projects", name="Wrong Name", patterns="nonsense")
    assert wrong.status_code == 422
    assert "Wrong Name" in wrong.text
    assert admin("/settings/projects/nothing", patterns="").status_code == 422


def test_a_token_is_shown_once(admin: Somebody, app: OpenAPI) -> None:
    made = admin("/settings/tokens", name="ci of <shop>", scope="gate", days="30")
    assert made.status_code == 303  # a reload makes no second one
    seen = admin.see("/settings/tokens")
    match = re.search(r"dw_[a-z0-9]+_[A-Za-z0-9_-]{20,}", seen)
    assert match
    assert match[0] not in admin.see("/settings/tokens")
    assert "&lt;shop&gt;" in seen
    found = app.test_client().get("/api/v1/images", headers={"Authorization": f"Bearer {match[0]}"})
    assert found.status_code == 403  # it is one, and may ask the gate only
    with_id = re.search(r"/settings/tokens/([0-9a-f-]{36})/revoke", seen)
    assert with_id
    assert admin(f"/settings/tokens/{with_id[1]}/revoke").status_code == 303
    assert "revoked" in admin.see("/settings/tokens")
    assert admin("/settings/tokens", name="", scope="gate", days="x").status_code == 422


def test_who_does_not_manage_sees_none_of_it(app: OpenAPI, make_token: Callable[..., str]) -> None:
    reader = Form(app.test_client(), make_token("read", "audit"))
    for path in ("/settings", "/settings/people", "/settings/projects", "/settings/tokens"):
        assert reader.client.get(path, headers=reader.headers).status_code == 403
    assert ">Settings<" not in reader.client.get("/images", headers=reader.headers).text
