"""Saved filters of users: a page, a name and the query string of the page's URL."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError
from scanner.store.schema import saved_view
from scanner.store.session import put as put_row

MOST = 30  # of a user, for one page
_KEY = ("owner", "page", "name")


@dataclass(frozen=True)
class SavedView:
    name: str
    query: str


def put(session: Connection, owner: str, page: str, name: str, query: str) -> None:
    """Save a view; one of the same name is replaced. Raises ConflictError beyond ``MOST``."""
    kept = list_views(session, owner, page)
    if len(kept) >= MOST and name not in {view.name for view in kept}:
        raise ConflictError(f"you have {MOST} saved views, which is the maximum", hint="remove one first")
    put_row(session, saved_view, {"owner": owner, "page": page, "name": name, "query": query}, _KEY)


def remove(session: Connection, owner: str, page: str, name: str) -> None:
    """Delete a view. Does nothing if it does not exist."""
    view = saved_view.c
    session.execute(saved_view.delete().where(view.owner == owner, view.page == page, view.name == name))


def list_views(session: Connection, owner: str, page: str) -> tuple[SavedView, ...]:
    """Return the views of a user for one page, by name."""
    view = saved_view.c
    query = sa.select(view.name, view.query).where(view.owner == owner, view.page == page)
    return tuple(SavedView(row.name, row.query) for row in session.execute(query.order_by(saved_view.c.name)))
