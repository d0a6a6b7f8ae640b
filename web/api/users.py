"""Users: people who sign in with a password or at the identity provider, and what their role lets them do."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, SecretStr, StringConstraints
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, RefusedError
from scanner.model.access import ROLES
from scanner.model.audit import Action
from scanner.store import accounts, audit
from web.api.base import Body, Model, answer, blueprint, problems
from web.auth import everywhere, permission, principal
from web.services import services

api = blueprint("users", "Users", "People who sign in.")

Role = Literal["viewer", "developer", "security", "admin"]
UserName = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._@-]*[A-Za-z0-9])?$")
]


class UserIn(Body):
    name: UserName
    password: SecretStr = Field(min_length=12, max_length=1000)
    role: Role = "viewer"


class UserChange(Body):
    disabled: bool


class RoleIn(Body):
    role: Role


class PasswordIn(Body):
    password: SecretStr = Field(min_length=12, max_length=1000)


class UserOut(Model):
    id: UUID
    name: str
    role: Role
    disabled: bool
    created_at: datetime
    issuer: str | None = Field(description="The identity provider they sign in at; null: they have a password here.")
    signed_in_at: datetime | None
    projects: list[str] = Field(description="Those they are a member of.")


class EndedOut(Model):
    ended: int = Field(description="How many web sessions ended.")


class UserList(Model):
    items: list[UserOut]


class UserPath(Model):
    user_id: UUID


def show(user: accounts.UserView) -> UserOut:
    return UserOut(
        id=UUID(user.id),
        name=user.name,
        role=user.role,
        disabled=user.disabled,
        created_at=user.created_at,
        issuer=user.issuer or None,
        signed_in_at=user.signed_in_at,
        projects=list(user.projects),
    )


@api.get("/users", responses={"200": UserList})
@permission("manage")
def index() -> Response:
    """List users"""
    everywhere()
    with services().database.read() as session:
        return answer(UserList(items=[show(user) for user in accounts.list_users(session)]))


@api.post("/users", responses={"201": UserOut, **problems(409)})
@permission("manage")
def create(body: UserIn) -> Response:
    """Add a user"""
    everywhere()
    _check_grant(body.role)
    with services().database.session() as session:
        user = accounts.create_user(session, body.name, body.password.get_secret_value(), body.role)
        _note(session, Action.USER_CREATE, user, {"role": user.role})
    return answer(show(user), 201)


@api.put("/users/<uuid:user_id>/disabled", responses={"200": UserOut, **problems(404, 409)})
@permission("manage")
def set_disabled(path: UserPath, body: UserChange) -> Response:
    """Disable or enable a user

    Disabling ends the user's sessions and tokens at once. Nobody can disable themselves.
    """
    everywhere()
    if body.disabled and principal().user_id == str(path.user_id):
        raise ConflictError("you cannot disable yourself", reason="own_account")
    with services().database.session() as session:
        before = _within(accounts.get_user(session, str(path.user_id)))
        user = accounts.set_disabled(session, before.id, body.disabled)
        action = Action.USER_DISABLE if body.disabled else Action.USER_ENABLE
        _note(session, action, user, {"before": before.disabled, "after": user.disabled})
    return answer(show(user))


@api.put("/users/<uuid:user_id>/role", responses={"200": UserOut, **problems(404, 409)})
@permission("manage")
def set_role(path: UserPath, body: RoleIn) -> Response:
    """Give a user another role

    Which signs them out everywhere. Nobody changes their own, and nobody gives a role that may more than theirs.
    """
    everywhere()
    _check_grant(body.role)
    if principal().user_id == str(path.user_id):
        raise ConflictError("you cannot change your own role", reason="own_account")
    with services().database.session() as session:
        before = _within(accounts.get_user(session, str(path.user_id)))
        user = accounts.set_role(session, before.id, body.role)
        _note(session, Action.USER_ROLE, user, {"before": before.role, "after": user.role})
    return answer(show(user))


@api.put("/users/<uuid:user_id>/password", responses={"204": None, **problems(404, 409)})
@permission("manage")
def set_password(path: UserPath, body: PasswordIn) -> Response:
    """Give a user another password

    Which signs them out everywhere.
    """
    everywhere()
    with services().database.session() as session:
        user = _within(accounts.get_user(session, str(path.user_id)))
        accounts.set_password(session, user.id, body.password.get_secret_value())
        _note(session, Action.USER_PASSWORD, user, {})
    return Response(status=204)


@api.post("/users/<uuid:user_id>/sign-out", responses={"200": EndedOut, **problems(404)})
@permission("manage")
def sign_out(path: UserPath) -> Response:
    """Sign a user out everywhere"""
    everywhere()
    with services().database.session() as session:
        user = accounts.get_user(session, str(path.user_id))
        ended = accounts.end_all(session, user.id)
        _note(session, Action.USER_SIGN_OUT, user, {"ended": ended})
    return answer(EndedOut(ended=ended))


def _within(user: accounts.UserView) -> accounts.UserView:
    """Whoever manages users manages none that may more than they: else a password set is a role taken."""
    _check_grant(user.role)
    return user


def _check_grant(role: str) -> None:
    if not ROLES.get(role, frozenset()) <= principal().permissions:
        raise RefusedError(f"you may not make a user {role!r}: it could do more than you", reason="not_allowed")


def _note(session: Connection, action: Action, user: accounts.UserView, detail: dict[str, object]) -> None:
    detail = {"name": user.name, **detail}
    audit.record(session, principal(), action, user.id, detail=detail)
