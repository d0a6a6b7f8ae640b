"""Changing the key that stored secrets are under: moving them to it, and forgetting the former one."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.store import audit, secrets

_OBJECT = "secret key"


def rotate_some(session: Connection, actor: Actor, key: Secret, moved_before: int) -> int:
    """Move some of the stored secrets to the key.

    Returns how many; 0: every one is under it, which is recorded once, with the sum.

    Each call is a transaction of its own, so that it can be broken off and begun again while everything runs.
    """
    moved = secrets.reseal(session, key)
    if not moved:
        audit.record(session, actor, Action.SECRETS_ROTATE, _OBJECT, detail={"moved": moved_before})
    return moved


def forget(session: Connection, actor: Actor) -> None:
    """Record that the former key is forgotten. The caller has made sure that nothing is under it, and deletes it."""
    audit.record(session, actor, Action.SECRETS_FORGET, _OBJECT)
