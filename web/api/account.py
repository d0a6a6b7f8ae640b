"""The caller's own account: permissions, sessions, password."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, SecretStr, StringConstraints

from scanner.services import accounts as use_cases
from scanner.store import accounts
from web.api.base import Body, Model, answer, blueprint, problems
from web.auth import SIGNED_IN, change_own_password, current_session_id, permission, principal
from web.resources import resources

api = blueprint("account", "Account", "The caller's own account: permissions, sessions, password.")


class AccountOut(Model):
    """``projects`` null: all projects. ``user`` null: a token without an owner."""

    name: str
    kind: Literal["user", "token"]
    user: UUID | None
    permissions: list[str]
    projects: list[str] | None


class SessionOut(Model):
    """``current``: the session of this request."""

    id: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    address: str
    agent: str
    current: bool


class SessionList(Model):
    items: list[SessionOut]


class SessionPath(Model):
    session_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class OwnSessionsEndedOut(Model):
    ended: int = Field(description="Number of web sessions that ended.")


class PasswordChange(Body):
    current: SecretStr = Field(max_length=1000)
    new: SecretStr = Field(min_length=12, max_length=1000)


@api.get("/account", responses={"200": AccountOut})
@permission(SIGNED_IN)
def get() -> Response:
    """Read your account and permissions"""
    who = principal()
    return answer(
        AccountOut(
            name=who.name,
            kind="user" if who.kind == "user" else "token",
            user=UUID(who.user_id) if who.user_id else None,
            permissions=sorted(who.permissions),
            projects=None if who.projects is None else sorted(who.projects),
        )
    )


@api.get("/account/sessions", responses={"200": SessionList})
@permission(SIGNED_IN)
def sessions() -> Response:
    """List your web sessions"""
    own = current_session_id()
    with resources().database.read() as session:
        found = accounts.open_sessions(session, principal().user_id)
    items = [
        SessionOut(
            id=one.id,
            created_at=one.created_at,
            seen_at=one.seen_at,
            expires_at=one.expires_at,
            address=one.address,
            agent=one.agent,
            current=one.id == own,
        )
        for one in found
    ]
    return answer(SessionList(items=items))


@api.delete("/account/sessions/<session_id>", responses={"204": None, **problems(404)})
@permission(SIGNED_IN)
def end_session(path: SessionPath) -> Response:
    """End one of your web sessions"""
    with resources().database.session() as session:
        use_cases.end_session(session, principal(), path.session_id)
    return Response(status=204)


@api.post("/account/sign-out-everywhere", responses={"200": OwnSessionsEndedOut, **problems(404)})
@permission(SIGNED_IN)
def sign_out_everywhere() -> Response:
    """End all of your web sessions, including this one"""
    with resources().database.session() as session:
        return answer(OwnSessionsEndedOut(ended=use_cases.end_own_sessions(session, principal())))


@api.put("/account/password", responses={"204": None, **problems(404, 409)})
@permission(SIGNED_IN)
def change_password(body: PasswordChange) -> Response:
    """Change your password

    This ends all of your sessions. It requires the current password and a web session, so a stolen token cannot change
    the password.
    """
    change_own_password(body.current.get_secret_value(), body.new.get_secret_value())
    return Response(status=204)
