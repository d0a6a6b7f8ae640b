"""Actors for tests: people with a role, and tokens."""

from __future__ import annotations

from scanner.model.access import ROLES
from scanner.model.actor import Actor


def person(
    name: str, role: str = "admin", projects: frozenset[str] | None = None, *, id_: str = "", address: str = ""
) -> Actor:
    """Somebody in a web session; everybody has an id of their own."""
    user_id = id_ or f"id-of-{name}"
    return Actor(
        f"user:{user_id}", name, "user", ROLES[role], projects, user_id=user_id, user_name=name, address=address
    )


def ownerless(name: str = "ci", *scopes: str, projects: frozenset[str] | None = None) -> Actor:
    """A token that nobody owns."""
    return Actor(f"token:{name}", f"token {name}", "token", frozenset(scopes), projects, token_id=name)
