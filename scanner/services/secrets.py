"""Rotation of the key that encrypts stored secrets."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.store import audit, secrets

_OBJECT = "secret key"


def rotate_some(session: Connection, actor: Actor, key: Secret, moved_before: int) -> int:
    """Encrypt the next batch of stored secrets with the new key. Returns its size; 0: all are done.

    The last call (0) writes one audit entry with the total, for which the caller passes ``moved_before``. Each batch is
    a transaction of its own, so a rotation can be interrupted and resumed while the service runs.
    """
    moved = secrets.reseal(session, key)
    if not moved:
        audit.record(session, actor, Action.SECRETS_ROTATE, _OBJECT, detail={"moved": moved_before})
    return moved


def forget(session: Connection, actor: Actor) -> None:
    """Record the deletion of the previous key. The caller has verified that no secret uses it, and deletes it."""
    audit.record(session, actor, Action.SECRETS_FORGET, _OBJECT)
