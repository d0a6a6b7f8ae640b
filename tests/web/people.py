"""Callers who are people: users with roles and memberships, and tokens of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from argon2 import PasswordHasher
from flask_openapi3.openapi import OpenAPI

from scanner.model.access import ROLES
from scanner.store import accounts, projects
from scanner.store.schema import user
from scanner.store.session import Database
from tests.web.conftest import KEY, Api

PASSWORD = "correct horse battery"


@lru_cache(maxsize=1)
def cheap_hash() -> str:
    """A hash of ``PASSWORD`` that costs nothing, which argon2 reads as it reads any."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


def person(database: Database, name: str, role: str, *, member_of: Iterable[str] = ()) -> str:
    """A local user with ``PASSWORD``. Returns the id."""
    identifier = str(uuid.uuid4())
    values = {"id": identifier, "name": name, "role": role, "disabled": False, "created_at": datetime.now(UTC)}
    with database.session() as session:
        session.execute(user.insert().values(**values, password_hash=cheap_hash()))
        for project in member_of:
            if not projects.exists(session, project):
                projects.create(session, project)
            projects.add_member(session, project, identifier)
    return identifier


def calling(app: OpenAPI, database: Database, user_id: str, scopes: Sequence[str] = ()) -> Api:
    """A caller with a token that a person made, which may what the person may."""
    with database.session() as session:
        role = accounts.get_user(session, user_id).role
        _, text = accounts.create_token(session, "own", scopes or sorted(ROLES[role]), KEY, owner_id=user_id)
    return Api(app.test_client(), text.reveal())
