"""API tokens. The text of one is in the answer that creates it, and nowhere else ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field

from scanner.errors import NotFoundError, RefusedError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.store import accounts, audit, projects
from web.api.base import PREFIX, Body, Model, Name, Text, Whole, answer, blueprint, problems
from web.auth import permission, principal
from web.services import services

api = blueprint("tokens", "Tokens", "API tokens: scopes, projects, an end.")

Scope = Literal["read", "scan", "gate", "propose", "triage", "policy", "manage", "audit"]


class TokenIn(Body):
    name: Annotated[Text, Field(min_length=1, max_length=200)]
    scopes: list[Scope] = Field(min_length=1, max_length=8, examples=[["gate"]])
    projects: list[Name] = Field([], max_length=100, description="Empty: every project its creator sees.")
    days: Whole = Field(90, ge=1, le=365, description="How long it lives.")


class TokenOut(Model):
    id: UUID
    name: str
    prefix: str = Field(description="`dw_<prefix>_…`: how to recognise it.")
    scopes: list[Scope]
    projects: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewTokenOut(TokenOut):
    token: str = Field(description="Shown once. Keep it where secrets are kept.")


class TokenList(Model):
    items: list[TokenOut]


class TokenPath(Model):
    token_id: UUID


def show(token: accounts.TokenView) -> TokenOut:
    return TokenOut(**_members(token))


def _members(token: accounts.TokenView) -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "prefix": token.prefix,
        "scopes": list(token.scopes),
        "projects": list(token.projects),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    }


@api.get("/tokens", responses={"200": TokenList})
@permission("manage")
def index() -> Response:
    """List tokens"""
    with services().database.read() as session:
        found = [token for token in accounts.list_tokens(session) if _within(token, principal())]
    return answer(TokenList(items=[show(token) for token in found]))


@api.post("/tokens", responses={"201": NewTokenOut, **problems(404)})
@permission("manage")
def create(body: TokenIn) -> Response:
    """Create a token

    Never more than its creator may, in none but its creator's projects, and for no longer than a token that creates it lives.
    """
    if excess := set(body.scopes) - principal().permissions:
        raise RefusedError(f"you do not have: {', '.join(sorted(excess))}", reason="not_allowed")
    with services().database.session() as session:
        wanted = _projects(body.projects, principal())
        for name in wanted:
            if not projects.exists(session, name):
                raise NotFoundError("there is no such project")
        expires = datetime.now(UTC) + timedelta(days=body.days)
        if own := principal().token_id:
            expires = min(expires, accounts.get_token(session, own).expires_at or expires)
        token, text = accounts.create_token(
            session,
            body.name,
            sorted(set(body.scopes)),
            services().secret_key,
            projects=wanted,
            expires_at=expires,
            owner_id=principal().user_id or None,
        )
        detail = {"scopes": list(token.scopes), "projects": list(token.projects)}
        audit.record(session, principal(), Action.TOKEN_CREATE, token.id, detail=detail)
    created = NewTokenOut(token=text.reveal(), **_members(token))
    return answer(created, 201, {"Location": f"{PREFIX}/tokens/{token.id}"})


@api.get("/tokens/<uuid:token_id>", responses={"200": TokenOut, **problems(404)})
@permission("manage")
def get(path: TokenPath) -> Response:
    """Read a token, without its secret"""
    with services().database.read() as session:
        return answer(show(_visible(accounts.get_token(session, str(path.token_id)))))


@api.delete("/tokens/<uuid:token_id>", responses={"200": TokenOut, **problems(404)})
@permission("manage")
def revoke(path: TokenPath) -> Response:
    """Revoke a token

    Effective at once, also for the web sessions that were opened with it.
    """
    with services().database.session() as session:
        _visible(accounts.get_token(session, str(path.token_id)))
        token = accounts.revoke_token(session, str(path.token_id))
        audit.record(session, principal(), Action.TOKEN_REVOKE, token.id)
    return answer(show(token))


def _projects(asked: list[str], who: Actor) -> list[str]:
    if who.projects is None:
        return sorted(set(asked))
    if not set(asked) <= who.projects:
        raise NotFoundError("there is no such project")
    return sorted(set(asked) or who.projects)


def _within(token: accounts.TokenView, who: Actor) -> bool:
    """A token that reaches further than the asker's projects is not there for the asker."""
    return who.projects is None or (bool(token.projects) and set(token.projects) <= who.projects)


def _visible(token: accounts.TokenView) -> accounts.TokenView:
    if not _within(token, principal()):
        raise NotFoundError("there is no such token")
    return token
