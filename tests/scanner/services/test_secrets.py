"""A rotation of the key: in batches, with one entry at its end."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from scanner.config import KeyRing, Secret
from scanner.model.actor import COMMAND_LINE
from scanner.services import registries, secrets
from scanner.store import audit
from scanner.store import registries as store

KEY, NEW = Secret("a secret key for tests, long enough"), Secret("the key after that one, long enough")


def test_a_rotation_is_one_entry(session: Connection) -> None:
    made = registries.add(
        session, COMMAND_LINE, KEY, "ghcr.io", username="octocat", password=Secret("s3cret-that-nobody-may-see")
    )
    moved = secrets.rotate_some(session, COMMAND_LINE, KeyRing(NEW, KEY), 0)
    assert moved == 1
    assert audit.list_entries(session, audit.Filter(action="secrets.rotate")).items == (), "it is not at its end"
    assert secrets.rotate_some(session, COMMAND_LINE, KeyRing(NEW, KEY), moved) == 0
    (entry,) = audit.list_entries(session, audit.Filter(action="secrets.rotate")).items
    assert entry.detail == {"moved": 1}
    found = store.password(session, made.id, NEW)
    assert found is not None
    assert found.reveal() == "s3cret-that-nobody-may-see"
