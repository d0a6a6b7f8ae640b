"""Revocations of engine versions, binaries and advisory databases: evidence based on them counts as unknown."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.decision import Revoked
from scanner.store import audit, revocations


def revoke(session: Connection, actor: Actor, what: Revoked, reason: str) -> revocations.RevocationView:
    """Revoke ``what``. Invalidates every decision that is based on it and queues new scans.

    Raises UsageError, RefusedError.
    """
    actor.require_every_project()
    found = revocations.revoke(session, what, reason, actor.name)
    audit.record(session, actor, Action.ADVISORIES_REVOKE, found.id, detail={"what": str(what), "reason": reason})
    return found


def lift(session: Connection, actor: Actor, identifier: str) -> revocations.RevocationView:
    """Lift a revocation. Raises NotFoundError, RefusedError."""
    actor.require_every_project()
    found = revocations.lift(session, identifier, actor.name)
    audit.record(session, actor, Action.ADVISORIES_REINSTATE, found.id, detail={"what": str(found.what)})
    return found
