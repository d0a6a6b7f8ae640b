"""Users: people who sign in with a password or at the identity provider, and their roles."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, SecretStr, StringConstraints

from scanner.services import accounts as use_cases
from scanner.store import accounts
from web.api.base import Body, Model, answer, blueprint, problems
from web.auth import everywhere, permission, principal
from web.resources import resources

api = blueprint("users", "Users", "People who sign in.")

Role = Literal["viewer", "developer", "security", "admin"]
UserName = Annotated[
    str, StringConstraints(min_length=1, max_length=use_cases.USER_NAME_LENGTH, pattern=use_cases.USER_NAME)
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
    issuer: str | None = Field(description="Identity provider of the user; null: a local user with a password.")
    signed_in_at: datetime | None
    projects: list[str] = Field(description="Projects of which the user is a member.")


class EndedOut(Model):
    ended: int = Field(description="Number of web sessions that ended.")


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
    # Names of users are not for an administrator of some projects.
    everywhere()
    with resources().database.read() as session:
        return answer(UserList(items=[show(user) for user in accounts.list_users(session)]))


@api.post("/users", responses={"201": UserOut, **problems(409)})
@permission("manage")
def create(body: UserIn) -> Response:
    """Add a user"""
    with resources().database.session() as session:
        user = use_cases.create_user(session, principal(), body.name, body.password.get_secret_value(), body.role)
    return answer(show(user), 201)


@api.put("/users/<uuid:user_id>/disabled", responses={"200": UserOut, **problems(404, 409)})
@permission("manage")
def set_disabled(path: UserPath, body: UserChange) -> Response:
    """Disable or enable a user

    Disabling ends the user's sessions and revokes their tokens at once. Users cannot disable themselves.
    """
    with resources().database.session() as session:
        user = use_cases.set_disabled(session, principal(), str(path.user_id), body.disabled)
    return answer(show(user))


@api.put("/users/<uuid:user_id>/role", responses={"200": UserOut, **problems(404, 409)})
@permission("manage")
def set_role(path: UserPath, body: RoleIn) -> Response:
    """Change a user's role

    Ends all of the user's sessions. Users cannot change their own role, nor grant a role with more permissions than
    theirs.
    """
    with resources().database.session() as session:
        user = use_cases.set_role(session, principal(), str(path.user_id), body.role)
    return answer(show(user))


@api.put("/users/<uuid:user_id>/password", responses={"204": None, **problems(404, 409)})
@permission("manage")
def set_password(path: UserPath, body: PasswordIn) -> Response:
    """Change a user's password

    Ends all of the user's sessions.
    """
    with resources().database.session() as session:
        use_cases.set_password(session, principal(), str(path.user_id), body.password.get_secret_value())
    return Response(status=204)


@api.post("/users/<uuid:user_id>/sign-out", responses={"200": EndedOut, **problems(404)})
@permission("manage")
def sign_out(path: UserPath) -> Response:
    """End all sessions of a user"""
    with resources().database.session() as session:
        ended = use_cases.sign_out(session, principal(), str(path.user_id))
    return answer(EndedOut(ended=ended))
