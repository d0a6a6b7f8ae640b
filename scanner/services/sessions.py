"""Web sessions: sign-in, sign-out and refused sign-ins."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.store import accounts, audit


def begin(session: Connection, actor: Actor, key: Secret, *, former: str, agent: str, via: str) -> Secret:
    """Start a new session and return its cookie value.

    ``former`` is the browser's previous session, which ends: reusing it would allow session fixation.
    """
    accounts.end_session(session, former, key)
    user_id = actor.user_id if actor.kind == "user" else ""
    text = accounts.begin_session(
        session,
        key,
        user_id=user_id or None,
        token_id=actor.token_id or None,
        address=actor.address,
        agent=agent,
    )
    if user_id:
        accounts.signed_in(session, user_id)
    audit.record(session, actor, Action.SESSION_BEGIN, user_id or actor.token_id, detail={"via": via})
    return text


def end(session: Connection, actor: Actor, key: Secret, text: str) -> None:
    """End the session with the cookie value ``text``."""
    accounts.end_session(session, text, key)
    audit.record(session, actor, Action.SESSION_END, actor.id)


def refuse(session: Connection, actor: Actor) -> None:
    """Record a failed password for the user ``actor``."""
    audit.record(session, actor, Action.SESSION_REFUSE, actor.user_id, detail={"via": "password"})
