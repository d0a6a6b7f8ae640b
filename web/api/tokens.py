"""API tokens. The text of a token is only in the answer that creates it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field

from scanner.model.access import SCOPES
from scanner.services import tokens as use_cases
from scanner.store import accounts
from web.api.base import PREFIX, Body, Model, Name, Text, Whole, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("tokens", "Tokens", "API tokens with scopes, projects and expiry.")

Scope = Literal[
    "read", "scan", "gate", "propose", "triage", "policy", "manage", "audit", "inventory", "admission", "pull", "harbor"
]


class TokenIn(Body):
    name: Annotated[Text, Field(min_length=1, max_length=use_cases.NAME_LENGTH)]
    scopes: list[Scope] = Field(min_length=1, max_length=len(SCOPES), examples=[["gate"]])
    projects: list[Name] = Field([], max_length=100, description="Empty: all projects that the creator sees.")
    days: Whole = Field(90, ge=1, le=use_cases.MOST_DAYS, description="Lifetime in days.")


class TokenOut(Model):
    id: UUID
    name: str
    prefix: str = Field(description="`dw_<prefix>_…`: its visible beginning.")
    scopes: list[Scope]
    projects: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewTokenOut(TokenOut):
    token: str = Field(description="Shown only once. Store it like a password.")


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
    with resources().database.read() as session:
        found = use_cases.visible(session, principal())
    return answer(TokenList(items=[show(token) for token in found]))


@api.post("/tokens", responses={"201": NewTokenOut, **problems(404)})
@permission("manage")
def create(body: TokenIn) -> Response:
    """Create a token

    It never has more permissions or projects than its creator, and never outlives a token that creates it.
    """
    with resources().database.session() as session:
        token, text = use_cases.create(
            session,
            principal(),
            resources().secret_key,
            body.name,
            body.scopes,
            project_names=body.projects,
            days=body.days,
        )
    created = NewTokenOut(token=text.reveal(), **_members(token))
    return answer(created, 201, {"Location": f"{PREFIX}/tokens/{token.id}"})


@api.get("/tokens/<uuid:token_id>", responses={"200": TokenOut, **problems(404)})
@permission("manage")
def get(path: TokenPath) -> Response:
    """Read a token, without its secret"""
    with resources().database.read() as session:
        return answer(show(use_cases.get(session, principal(), str(path.token_id))))


@api.delete("/tokens/<uuid:token_id>", responses={"200": TokenOut, **problems(404)})
@permission("manage")
def revoke(path: TokenPath) -> Response:
    """Revoke a token

    Effective at once, also for web sessions that were opened with it.
    """
    with resources().database.session() as session:
        token = use_cases.revoke(session, principal(), str(path.token_id))
    return answer(show(token))
