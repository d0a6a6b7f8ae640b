"""The rules of the use cases, whoever calls them; and that a change and its audit entry cannot come apart."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError, RefusedError, UsageError
from scanner.model.access import SCOPES
from scanner.model.actor import COMMAND_LINE
from scanner.services import accounts, exemptions, policies, projects, registries, tokens, trust_roots, webhooks
from scanner.store import accounts as stored
from scanner.store import audit
from scanner.store.session import Database
from tests.actors import ownerless, person
from tests.databases import migrated_url

ROOT = Path(__file__).parents[3]
KEY = Secret("a secret key for tests, long enough")
PASSWORD = "correct horse battery"
SHOP = frozenset({"shop"})
IMAGES = ["registry.example.com/shop/cart"]


def exemption(**changes: Any) -> exemptions.NewExemption:
    ends = datetime.now(UTC) + timedelta(days=20)
    return exemptions.NewExemption(
        **{"images": IMAGES, "justification": "We never call it.", "expires_at": ends, "subject": "CVE-1", **changes}
    )


def test_only_use_cases_write_the_audit_log() -> None:
    """A page, a route or a command that wrote an entry of its own would be a second place for the rule."""
    elsewhere = []
    for file in (*ROOT.glob("scanner/**/*.py"), *ROOT.glob("web/**/*.py")):
        if file.is_relative_to(ROOT / "scanner/services") or file == ROOT / "scanner/store/audit.py":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("audit.record", "store.audit.record"):
                elsewhere.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert elsewhere == []


@pytest.mark.parametrize(
    "work",
    [
        lambda s, who: projects.create(s, who, "x"),
        lambda s, who: projects.change(s, who, "shop", description="x"),
        lambda s, who: projects.add_member(s, who, "shop", "x"),
        lambda s, who: accounts.create_user(s, who, "x", PASSWORD, "viewer"),
        lambda s, who: accounts.set_role(s, who, "x", "viewer"),
        lambda s, who: accounts.set_disabled(s, who, "x", True),
        lambda s, who: accounts.sign_out(s, who, "x"),
        lambda s, who: registries.add(s, who, KEY, "registry.example.com"),
        lambda s, who: registries.remove(s, who, "x"),
        lambda s, who: policies.to_edit(s, who, "everybodys"),
        lambda s, who: trust_roots.remove(s, who and "x", who),
    ],
)
def test_whoever_is_confined_to_projects_changes_nothing_of_everybodys(
    session: Connection, work: Callable[[Connection, Any], object]
) -> None:
    with pytest.raises(RefusedError, match="access to all projects"):
        work(session, ownerless("ci", *SCOPES, projects=SHOP))
    assert audit.list_entries(session).items == ()


def test_a_project_that_is_not_ones_own_does_not_exist(session: Connection) -> None:
    projects.create(session, COMMAND_LINE, "other")
    for actor in (person("eve", "developer", SHOP), ownerless("ci", *SCOPES, projects=SHOP)):
        with pytest.raises(NotFoundError, match="no such project"):
            exemptions.request(session, actor, exemption(project="other"))
        with pytest.raises(NotFoundError, match="no such project"):
            tokens.create(session, actor, KEY, "x", ["read"], project_names=["other"])
        with pytest.raises(NotFoundError, match="no such project"):
            policies.to_edit(session, actor, "new", "other")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"images": []}, "images"),
        ({"images": ["../../etc"]}, "images"),
        ({"images": IMAGES * 51}, "images"),
        ({"rule": "Not A Rule"}, "rule"),
        ({"subject": "x" * 201}, "subject"),
        ({"subject": "line\nbreak"}, "subject"),
        ({"subject": "", "rule": ""}, "subject"),
        ({"justification": "short"}, "justification"),
        ({"justification": "a NUL \x00 in it"}, "justification"),
        ({"expires_at": datetime.now(UTC) - timedelta(days=1)}, "expires_at"),
        ({"project": "No Name"}, "project"),
    ],
)
def test_a_mistake_names_its_field(session: Connection, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        exemptions.request(session, person("dora", "developer"), exemption(**changes))
    assert refused.value.field == field


def test_it_takes_another_person_to_approve(session: Connection) -> None:
    dora, sam = person("dora", "security"), person("sam", "security")
    asked = exemptions.request(session, dora, exemption())
    with pytest.raises(RefusedError) as own:
        exemptions.approve(session, dora, asked.id)
    assert own.value.reason == "four_eyes"
    with pytest.raises(RefusedError) as nobody:
        exemptions.approve(session, ownerless("ci", *SCOPES), asked.id)
    assert nobody.value.reason == "needs_person"
    assert exemptions.approve(session, sam, asked.id).state == "approved"
    with pytest.raises(RefusedError, match="only the owner"):
        exemptions.revoke(session, person("eve", "developer"), asked.id)
    assert exemptions.revoke(session, dora, asked.id).state == "revoked"


def test_nobody_manages_somebody_who_may_do_more(session: Connection) -> None:
    admin = accounts.create_user(session, COMMAND_LINE, "ada", PASSWORD, "admin")
    helper = ownerless("helpdesk", "manage", "read")
    for work in (
        lambda: accounts.set_password(session, helper, admin.id, "another horse battery"),
        lambda: accounts.set_role(session, helper, admin.id, "viewer"),
        lambda: accounts.set_disabled(session, helper, admin.id, True),
        lambda: accounts.create_user(session, helper, "bob", PASSWORD, "security"),
    ):
        with pytest.raises(RefusedError, match="permissions that you do not have"):
            work()
    assert accounts.create_user(session, helper, "vera", PASSWORD, "viewer").role == "viewer"


def test_nobody_shuts_themselves_out(session: Connection) -> None:
    ada = accounts.create_user(session, COMMAND_LINE, "ada", PASSWORD, "admin")
    herself = person("ada", id_=ada.id)
    with pytest.raises(ConflictError, match="disable yourself"):
        accounts.set_disabled(session, herself, ada.id, True)
    with pytest.raises(ConflictError, match="your own role"):
        accounts.set_role(session, herself, ada.id, "viewer")


def test_a_token_is_never_more_than_its_creator(session: Connection) -> None:
    short, _ = tokens.create(session, COMMAND_LINE, KEY, "short", ["manage", "read"], days=2)
    creator = ownerless(short.id, "manage", "read")
    with pytest.raises(RefusedError, match="you do not have: policy"):
        tokens.create(session, creator, KEY, "more", ["policy"])
    with pytest.raises(UsageError, match="member of no project"):  # without projects it would see all of them
        tokens.create(session, ownerless(short.id, "manage", "read", projects=frozenset()), KEY, "more", ["read"])
    made, _ = tokens.create(session, creator, KEY, "longer", ["read"], days=300)
    assert made.expires_at == short.expires_at
    for scopes, days, field in (
        ([], 90, "scopes"),
        (["fly"], 90, "scopes"),
        (["read"], 0, "days"),
        (["read"], 366, "days"),
    ):
        with pytest.raises(UsageError) as refused:
            tokens.create(session, COMMAND_LINE, KEY, "x", scopes, days=days)
        assert refused.value.field == field


def test_the_change_and_its_entry_are_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the entry cannot be written, nothing was done."""
    database = Database(migrated_url("sqlite", tmp_path))
    with database.session() as session:
        session.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(Exception, match="disk full"), database.session() as session:
        accounts.create_user(session, COMMAND_LINE, "ada", PASSWORD, "admin")
    with database.read() as session:
        assert stored.list_users(session) == ()
    database.engine.dispose()


def test_a_webhook_of_another_projects_registry_does_not_exist(session: Connection) -> None:
    projects.create(session, COMMAND_LINE, "shop")
    registry = registries.add(session, COMMAND_LINE, KEY, "registry.example.com")
    hook, _ = webhooks.create(session, COMMAND_LINE, KEY, registry.id, "distribution", ["distribution"])
    confined = ownerless("ci", *SCOPES, projects=SHOP)
    for work in (
        lambda: webhooks.create(session, confined, KEY, registry.id, "distribution", ["distribution"]),
        lambda: webhooks.rotate(session, confined, KEY, hook.id),
        lambda: webhooks.finish(session, confined, KEY, hook.id),
        lambda: webhooks.set_disabled(session, confined, hook.id, True),
        lambda: webhooks.remove(session, confined, hook.id),
    ):
        with pytest.raises(NotFoundError):
            work()


def test_a_policy_that_is_written_unchanged_is_no_change(session: Connection) -> None:
    """A pipeline writes its policies at each commit. Every image would be decided about again each time."""
    text = (
        "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: mine}\n"
        "rules: [{id: not-root, check: root-user, action: deny}]\n"
    )
    for _ in range(2):
        written = policies.write(session, COMMAND_LINE, "mine", text, if_version=None)
        assert written.version == 1
    assert len(audit.list_entries(session, audit.Filter(action="policy.write")).items) == 1


def test_a_project_is_changed_to_what_there_is(session: Connection) -> None:
    projects.create(session, COMMAND_LINE, "shop")
    changed = projects.change(session, COMMAND_LINE, "shop", patterns=["registry.example.com/shop/**"])
    assert changed.patterns == ("registry.example.com/shop/**",)
    for given, field in (({"engine": "clamav"}, "engine"), ({"patterns": ["a/" + "*a" * 40]}, "patterns")):
        with pytest.raises(UsageError) as refused:
            projects.change(session, COMMAND_LINE, "shop", **given)  # type: ignore[arg-type]
        assert refused.value.field == field
    (entry,) = audit.list_entries(session, audit.Filter(action="project.change")).items
    assert entry.detail == {"patterns": {"before": [], "after": ["registry.example.com/shop/**"]}}
