"""Users: people who sign in with a password, and what their role lets them do."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, SecretStr, StringConstraints

from scanner.errors import ConflictError, RefusedError
from scanner.store import accounts, audit
from web.api.base import Body, Model, answer, blueprint, problems
from web.auth import ROLES, address, everywhere, permission, principal
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


class UserOut(Model):
    id: UUID
    name: str
    role: Role
    disabled: bool
    created_at: datetime


class UserList(Model):
    items: list[UserOut]


class UserPath(Model):
    user_id: UUID


def show(user: accounts.UserView) -> UserOut:
    return UserOut(id=UUID(user.id), name=user.name, role=user.role, disabled=user.disabled, created_at=user.created_at)


@api.get("/users", responses={"200": UserList})
@permission("manage")
def index() -> Response:
    """List users"""
    with services().database.read() as session:
        return answer(UserList(items=[show(user) for user in accounts.list_users(session)]))


@api.post("/users", responses={"201": UserOut, **problems(409)})
@permission("manage")
def create(body: UserIn) -> Response:
    """Add a user"""
    everywhere()
    if not ROLES[body.role] <= principal().permissions:
        raise RefusedError(f"you may not make a user {body.role!r}: it could do more than you", reason="not_allowed")
    with services().database.session() as session:
        user = accounts.create_user(session, body.name, body.password.get_secret_value(), body.role)
        audit.record(
            session,
            principal().name,
            "user.create",
            user.id,
            address=address(),
            detail={"name": user.name, "role": user.role},
        )
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
        user = accounts.set_disabled(session, str(path.user_id), body.disabled)
        action = "user.disable" if body.disabled else "user.enable"
        audit.record(session, principal().name, action, user.id, address=address())
    return answer(show(user))
