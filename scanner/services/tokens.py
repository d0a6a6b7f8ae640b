"""API tokens.

A token never has more scopes, more projects or (if a token creates it) a longer lifetime than its creator. Its text is
returned once, by the function that creates it; the store keeps a hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import NotFoundError, RefusedError
from scanner.model.access import SCOPES
from scanner.model.actor import SERVICE, Actor
from scanner.model.audit import Action
from scanner.services import _fields as fields
from scanner.store import accounts, audit, projects

NAME_LENGTH = 200
MOST_DAYS = 365  # a token without an end would outlive the person who made it


def create(
    session: Connection,
    actor: Actor,
    key: Secret,
    name: str,
    scopes: Sequence[str],
    *,
    project_names: Sequence[str] = (),
    days: int = 90,
) -> tuple[accounts.TokenView, Secret]:
    """Create a token. Returns it with its text. ``project_names`` empty: every project that the actor can see.

    Raises UsageError naming the field, RefusedError for a scope that the actor does not have, NotFoundError.
    """
    fields.text("name", name, NAME_LENGTH, shortest=1)
    if not scopes:
        raise fields.invalid("scopes", "at least one scope is required", "one of " + ", ".join(SCOPES))
    if unknown := set(scopes) - set(SCOPES):
        raise fields.invalid("scopes", f"there is no scope {min(unknown)[:64]!r}", "one of " + ", ".join(SCOPES))
    if not 1 <= days <= MOST_DAYS:
        raise fields.invalid("days", f"a token is valid for 1 to {MOST_DAYS} days")
    if excess := set(scopes) - actor.permissions:
        raise RefusedError(
            f"you cannot grant scopes that you do not have: {', '.join(sorted(excess))}",
            reason="not_allowed",
            field="scopes",
        )
    reach = _reach(session, actor, project_names)
    expires = datetime.now(UTC) + timedelta(days=days)
    if actor.token_id:
        # Otherwise a stolen token could renew itself for ever, and its owner's choice of a short life would mean
        # nothing.
        expires = min(expires, accounts.get_token(session, actor.token_id).expires_at or expires)
    token, text = accounts.create_token(
        session,
        name,
        sorted(set(scopes)),
        key,
        projects=reach,
        expires_at=expires,
        owner_id=actor.user_id or None,
    )
    detail = {"name": token.name, "scopes": list(token.scopes), "projects": list(token.projects)}
    audit.record(session, actor, Action.TOKEN_CREATE, token.id, detail=detail)
    return token, text


def revoke(session: Connection, actor: Actor, token_id: str) -> accounts.TokenView:
    """Revoke a token and end the web sessions that were opened with it. Raises NotFoundError."""
    get(session, actor, token_id)
    token = accounts.revoke_token(session, token_id)
    audit.record(session, actor, Action.TOKEN_REVOKE, token.id, detail={"name": token.name})
    return token


def get(session: Connection, actor: Actor, token_id: str) -> accounts.TokenView:
    """Return a token. Raises NotFoundError, also for a token of other projects than the actor's."""
    token = accounts.get_token(session, token_id)
    if not _visible(token, actor):
        raise NotFoundError("there is no such token")
    return token


def visible(session: Connection, actor: Actor) -> list[accounts.TokenView]:
    """Return the tokens that the actor can see, the newest first."""
    return [token for token in accounts.list_tokens(session) if _visible(token, actor)]


def bootstrap(session: Connection, key: Secret) -> Secret | None:
    """Create the first administrator's token and return its text. None if a user or token exists already."""
    # Only on an empty installation: a restart must not create another administrator's token.
    if not accounts.is_empty(session):
        return None
    token, text = accounts.create_token(session, "first administrator", SCOPES, key)
    audit.record(session, SERVICE, Action.TOKEN_CREATE, token.id, detail={"name": token.name, "first_run": True})
    return text


def _reach(session: Connection, actor: Actor, asked: Sequence[str]) -> list[str]:
    if not all(actor.sees(name) and projects.exists(session, name) for name in asked):
        raise NotFoundError("there is no such project", field="projects")
    found = sorted(set(asked) or actor.projects or ())
    # A token without projects sees every project. An actor who is a member of none must not make one.
    if not found and actor.projects is not None:
        raise fields.invalid("projects", "you are a member of no project, so a token would see nothing")
    return found


def _visible(token: accounts.TokenView, actor: Actor) -> bool:
    """Return whether all projects of the token are the actor's."""
    # A token without projects reaches every project, so it is not visible to an actor who is limited to some.
    return actor.projects is None or (bool(token.projects) and set(token.projects) <= actor.projects)
