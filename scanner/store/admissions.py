"""Reviews of the admission webhook: what was asked, by whom, and what became of it. Kept for a month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import admission_review
from scanner.store.session import moment

KEPT = timedelta(days=30)
_MOST = 50_000


@dataclass(frozen=True)
class ReviewView:
    id: int
    at: datetime
    token: str
    user: str
    operation: str
    kind: str
    namespace: str
    name: str
    mode: str
    environment: str
    outcome: str
    images: Sequence[Mapping[str, str]]
    message: str


def record(session: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note reviews, and forget those that are too old or too many."""
    now = moment(session)
    session.execute(admission_review.insert(), [{"at": now, **row} for row in rows])
    newest = session.execute(sa.select(sa.func.max(admission_review.c.id))).scalar() or 0
    old = sa.or_(admission_review.c.at < now - KEPT, admission_review.c.id < newest - _MOST)
    session.execute(admission_review.delete().where(old))


def list_(
    session: Connection, *, outcome: str = "", namespace: str = "", cursor: str | None = None, limit: int = 50
) -> Page[ReviewView]:
    """Reviews, newest first."""
    table = admission_review.c
    query = sa.select(*table).order_by(table.id.desc()).limit(limit + 1)
    if outcome:
        query = query.where(table.outcome == outcome)
    if namespace:
        query = query.where(table.namespace == namespace)
    if cursor:
        query = query.where(table.id < decode_cursor(cursor, (int,))[0])
    rows = session.execute(query).all()
    return Page(
        tuple(ReviewView(**row._mapping) for row in rows[:limit]),
        encode_cursor(rows[limit - 1].id) if len(rows) > limit else None,
    )


def figures(session: Connection) -> Mapping[str, int]:
    """How many reviews of the last day had each outcome."""
    table = admission_review.c
    query = sa.select(table.outcome, sa.func.count()).where(table.at > moment(session) - timedelta(days=1))
    return {row[0]: row[1] for row in session.execute(query.group_by(table.outcome))}


def last(session: Connection) -> datetime | None:
    """When the webhook was last asked."""
    return session.execute(sa.select(sa.func.max(admission_review.c.at))).scalar()
