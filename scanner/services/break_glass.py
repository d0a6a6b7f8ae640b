"""Break glass: in an emergency a named person lets one digest through, for hours, with a reason.

Only the users in the setting ``break_glass`` may do so, signed in or with a token of their own. Decisions are not
changed: answers of the gate and of the doors are ``warn`` instead of ``deny``, with that user's name.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection

from scanner.config import Settings
from scanner.errors import ImageError, RefusedError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.notification import Event, EventKind, Level
from scanner.model.reference import Digest, Reference
from scanner.model.untrusted import clean_text
from scanner.services import _fields as fields
from scanner.store import audit, break_glass, outbox

MOST_HOURS = 4  # long enough for a night; who needs longer decides again
REASON_SHORTEST, REASON_LONGEST = 10, 500  # characters: an empty or a one-word reason explains nothing to the auditor

Document = dict[str, Any]


def may(settings: Settings, actor: Actor) -> bool:
    """Return whether the actor is a user in the setting ``break_glass``."""
    # An actor who is limited to projects is refused even if the setting names the owner: what is let through is a
    # digest, and one digest can be an image of several projects.
    return bool(actor.user_name) and actor.user_name in settings.break_glass and actor.projects is None


def begin(
    session: Connection, settings: Settings, actor: Actor, digest: str, reason: str, hours: float
) -> break_glass.BreakGlassView:
    """Let a digest through. Raises RefusedError for others than the named persons, UsageError naming the field."""
    _check(settings, actor)
    try:
        Digest(digest)
    except ImageError as error:
        raise fields.invalid("digest", str(error), error.hint) from error
    fields.text("reason", reason, REASON_LONGEST, shortest=REASON_SHORTEST)
    # Short on purpose. An emergency that lasts longer than this has time for an exemption, which two people decide.
    if not 0 < hours <= MOST_HOURS:
        raise fields.invalid("hours", f"a digest is let through for up to {MOST_HOURS} hours")
    found = break_glass.add(session, digest, reason, actor.user_name, hours * 3600)
    detail = {"reason": reason, "until": found.until.isoformat()}
    audit.record(session, actor, Action.BREAK_GLASS_BEGIN, digest, detail=detail)
    event = Event(
        EventKind.BREAK_GLASS,
        digest,
        f"{actor.user_name} lets {digest[:19]} through until {found.until:%Y-%m-%d %H:%M} UTC: {reason}",
        item=digest,
        level=Level.CRITICAL,
        path="/enforcement",
        data={"digest": digest, "opened_by": actor.user_name, **detail},
    )
    # In the transaction of the entry: no image is let through without a notification.
    outbox.add(session, [event])
    return found


def end(session: Connection, settings: Settings, actor: Actor, identifier: str) -> break_glass.BreakGlassView:
    """End one before its time. Raises RefusedError, NotFoundError."""
    _check(settings, actor)
    found = break_glass.end(session, identifier, actor.user_name)
    audit.record(session, actor, Action.BREAK_GLASS_END, found.digest, detail={"opened_by": found.opened_by})
    return found


def _check(settings: Settings, actor: Actor) -> None:
    if not may(settings, actor):
        raise RefusedError(
            "you are not one of those who may break glass",
            reason="not_allowed",
            hint="DOCKWARDEN_BREAK_GLASS names them; use your own session or a token of your own",
        )


def override_text(found: break_glass.BreakGlassView) -> str:
    """Who let it through, until when and why."""
    until = f"{found.until:%Y-%m-%d %H:%M} UTC"
    return clean_text(f"break glass: {found.opened_by} lets it through until {until}: {found.reason}", 300)


def unscanned_document(reference: Reference, environment: str, found: break_glass.BreakGlassView) -> Document:
    """The answer about a digest that nothing is known of."""
    document: Document = dict.fromkeys(("policy_digest", "subject", "evidence", "decided_at"))
    document |= {"image": str(reference), "digest": found.digest, "environment": environment, "reasons": []}
    document |= {"changes": [], "images": [], "policy": "", "policy_version": 0}
    return apply_override(document, found)


def apply_override(document: Document, found: break_glass.BreakGlassView) -> Document:
    """A decision of the gate that denies, as it is answered now."""
    reason = {
        "rule": "break-glass",
        "kind": "exempted",
        "action": "warn",
        "message": override_text(found),
        "subject": "",
        "evidence": [],
        "remedy": "",
        "count": 1,
        "exemption": found.id,
        "slug": "break_glass",
    }
    # A warning, not an allowance: every answer keeps the name of the person and the reasons that were overruled. It
    # is valid until the end of the emergency at the latest, so that no cache of a door outlives that.
    changed = {"verdict": "warn", "undecided": False, "valid_until": found.until.isoformat()}
    return {**document, **changed, "reasons": [reason, *document["reasons"]]}
