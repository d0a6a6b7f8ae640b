"""The audit log for people: every action has its sentence, with names where the entry has ids."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime, timedelta

from scanner.config import Secret
from scanner.model.actor import COMMAND_LINE, SERVICE
from scanner.model.audit import Action
from scanner.services import accounts, audit_log, exemptions, policies, projects, registries, tokens, webhooks
from scanner.store import audit
from scanner.store.session import Database
from tests.actors import person

KEY = Secret("a secret key for tests, long enough")
PASSWORD = "correct horse battery"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}"
POLICY = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: production}
rules:
  - {id: not-root, check: root-user, action: deny}
"""


def told(database: Database) -> list[audit_log.ReadableEntry]:
    """Every entry, the oldest first."""
    with database.read() as session:
        return list(reversed(audit_log.readable(session, audit.list_entries(session, limit=200).items)))


def test_every_action_has_a_sentence() -> None:
    assert set(audit_log.SENTENCES) == set(Action)
    for action, sentence in audit_log.SENTENCES.items():
        assert [name for _, name, _, _ in string.Formatter().parse(sentence) if name == ""] == [], action
        assert sentence[0].islower()
        assert not sentence.endswith(".")


def test_what_people_do_is_told_with_names(database: Database) -> None:
    ada = person("ada", address="192.0.2.7")
    with database.session() as session:
        projects.create(session, ada, "shop", patterns=["registry.example.com/shop/**"])
        projects.change(session, ada, "shop", groups=["team-shop"])
        vera = accounts.create_user(session, ada, "vera", PASSWORD, "viewer")
        accounts.set_role(session, ada, vera.id, "developer")
        projects.add_member(session, ada, "shop", vera.id)
        projects.remove_member(session, ada, "shop", vera.id)
        token, _ = tokens.create(session, COMMAND_LINE, KEY, "ci", ["gate"], project_names=["shop"])
        tokens.revoke(session, ada, token.id)
        policies.write(session, ada, "production", POLICY, if_version=0)
        registry = registries.add(session, ada, KEY, "registry.example.com")
        hook, _ = webhooks.create(session, ada, KEY, registry.id, "distribution", ["distribution"])
        webhooks.rotate(session, ada, KEY, hook.id)
        webhooks.finish(session, ada, KEY, hook.id)
        webhooks.remove(session, ada, hook.id)
        registries.remove(session, ada, registry.id)
    assert [line.text for line in told(database)] == [
        "ada added project shop",
        "ada changed project shop",
        "ada added user vera as viewer",
        "ada changed the role of vera from viewer to developer",
        "ada made vera a member of project shop",
        "ada removed vera from project shop",
        "command line created token ci",
        "ada revoked token ci",
        "ada wrote version 1 of policy production",
        "ada added registry registry.example.com",
        "ada created a webhook for registry.example.com",
        "ada rotated the secret of webhook “pushes of registry.example.com”",
        "ada ended the rotation of webhook “pushes of registry.example.com”, keeping the new secret",
        "ada deleted webhook “pushes of registry.example.com”",
        "ada removed registry registry.example.com",
    ]
    whole = " ".join(f"{line.text} {' '.join(line.notes)}" for line in told(database))
    assert not re.search(UUID, whole)
    assert not re.search(r"[\[\]{}']", whole)
    notes = {line.entry.action: line.notes for line in told(database)}
    assert notes["project.change"] == ("groups: none → team-shop",)
    assert notes["token.create"] == ("scopes: gate", "projects: shop")
    assert notes["project.create"] == ("patterns: registry.example.com/shop/**",)


def test_an_exemption_is_told_by_what_it_is_about(database: Database) -> None:
    dora, sam = person("dora", "developer"), person("sam", "security")
    ends = datetime.now(UTC) + timedelta(days=20)
    wanted = exemptions.NewExemption(
        ["registry.example.com/shop/cart"], "We never call this command.", ends, subject="CVE-2026-1"
    )
    with database.session() as session:
        asked = exemptions.request(session, dora, wanted)
        exemptions.approve(session, sam, asked.id, "Until the next release.")
        audit.record(session, SERVICE, Action.EXEMPTION_LAPSE, asked.id, detail={"project": "default", "why": "a fix"})
    requested, approved, lapsed = told(database)
    about = "the exemption from CVE-2026-1 for registry.example.com/shop/cart"
    assert approved.text == f"sam approved {about}"
    assert requested.text == f"dora requested {about.replace('the', 'an', 1)}"
    assert lapsed.text == f"dockwarden ended {about}: a fix"
    assert "note: Until the next release." in approved.notes


def test_entries_of_other_versions_are_still_told(database: Database) -> None:
    """Entries without the names that are written today, about things that are gone, and an action that this version
    does not know.
    """
    gone = "0f8fad5b-d9cb-469f-a165-70867728950e"
    with database.session() as session:
        audit.record(session, person("ada"), Action.TOKEN_REVOKE, gone)
        audit.record(session, person("ada"), Action.REGISTRY_REMOVE, gone)
        audit.record(session, person("ada"), Action.WEBHOOK_CREATE, "registry.example.com")
        audit.record(session, person("ada"), Action.REGISTRY_ADD, "registry.example.com", detail={"insecure": False})
    assert [line.text for line in told(database)] == [
        "ada revoked token 0f8fad5b…",
        "ada removed registry 0f8fad5b…",
        "ada created a webhook for registry.example.com",
        "ada added registry registry.example.com",
    ]
    entry = audit.Entry(1, datetime.now(UTC), "ada", "future.thing", "x", "", {"list": ["a", "b"]})
    with database.read() as session:
        (line,) = audit_log.readable(session, [entry])
    assert (line.text, line.notes) == ("ada future.thing x", ("list: a, b",))


def test_who_changes_their_own_password_reads_so(database: Database) -> None:
    with database.session() as session:
        audit.record(session, person("ada"), Action.USER_PASSWORD, "id-of-ada", detail={"name": "ada"})
    assert [line.text for line in told(database)] == ["ada changed their own password"]


def test_values_of_any_kind_are_shown_as_words() -> None:
    """Entries of all versions, whatever their members hold."""
    notes = audit_log._notes(
        {
            "insecure": True,
            "before": {"version": 2, "digest": "sha256:0"},
            "limits": {"memory": "64Mi", "cpu": ""},
            "said": 3,
        },
        ["said"],
    )
    assert notes[0].endswith(": yes")
    assert notes[1:] == ("before: version 2", "limits: memory 64Mi")


def test_what_an_exemption_covers_is_named_as_narrowly_as_it_is(database: Database) -> None:
    """An entry without an exemption that could be looked up: its detail alone says what it was about."""
    ada = person("ada")
    with database.session() as session:
        for detail in ({"subject": "CVE-2026-1", "rule": "no-criticals"}, {"rule": "no-criticals"}, {}):
            audit.record(session, ada, Action.EXEMPTION_REQUEST, "gone", detail=detail)
    texts = [line.text for line in told(database)]
    assert "CVE-2026-1 (rule no-criticals)" in texts[0]
    assert "rule no-criticals" in texts[1]
    assert "a rule" in texts[2]


def test_a_webhook_is_told_by_its_name(database: Database) -> None:
    ada = person("ada")
    with database.session() as session:
        registry = registries.add(session, ada, KEY, "mine.io")
        made, _ = webhooks.create(session, ada, KEY, registry.id, "distribution", ["distribution"], name="pushes")
        audit.record(session, ada, Action.WEBHOOK_REMOVE, made.id)
    assert "pushes" in told(database)[-1].text
