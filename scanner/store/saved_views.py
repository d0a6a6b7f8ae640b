"""Saved filters of users: a name and the query string of a page's URL."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError
from scanner.store.schema import saved_view
from scanner.store.session import put as put_row

MOST = 30


@dataclass(frozen=True)
class SavedView:
    name: str
    query: str


def put(session: Connection, owner: str, name: str, query: str) -> None:
    """Save a view; one of the same name is replaced. Raises ConflictError beyond ``MOST``."""
    kept = list_(session, owner)
    if len(kept) >= MOST and name not in {view.name for view in kept}:
        raise ConflictError(f"you have {MOST} saved views, which is the maximum", hint="remove one first")
    put_row(session, saved_view, {"owner": owner, "name": name, "query": query}, ("owner", "name"))


def remove(session: Connection, owner: str, name: str) -> None:
    """Delete a view. Does nothing if it does not exist."""
    session.execute(saved_view.delete().where(saved_view.c.owner == owner, saved_view.c.name == name))


def list_(session: Connection, owner: str) -> tuple[SavedView, ...]:
    """Return the views of a user, by name."""
    query = sa.select(saved_view.c.name, saved_view.c.query).where(saved_view.c.owner == owner)
    return tuple(SavedView(row.name, row.query) for row in session.execute(query.order_by(saved_view.c.name)))
