"""Calls of doors (Kubernetes admission, pulls, engines) with their outcome, kept for 30 days."""

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

KEPT = timedelta(days=30)  # then the audit log has denials alone
_MOST = 50_000  # rows: a failing controller can cause thousands of reviews an hour


@dataclass(frozen=True)
class ReviewView:
    """One call. ``door``: ``kubernetes``, ``registry``, ``docker`` or ``harbor``."""

    id: int
    door: str
    at: datetime  # when the call was answered
    token: str
    user: str
    operation: str
    kind: str
    namespace: str
    name: str
    mode: str  # whether the door enforces, or only records what it would have done
    environment: str
    outcome: str
    images: Sequence[Mapping[str, str]]  # container, image and what was decided, as the page shows them
    message: str


def record(session: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert reviews and delete the oldest beyond `KEPT` and `_MOST`."""
    now = moment(session)
    session.execute(admission_review.insert(), [{"at": now, **row} for row in rows])
    # By the number of the newest row instead of a count: it needs no scan of the table with every batch.
    newest = session.execute(sa.select(sa.func.max(admission_review.c.id))).scalar() or 0
    old = sa.or_(admission_review.c.at < now - KEPT, admission_review.c.id < newest - _MOST)
    session.execute(admission_review.delete().where(old))


def list_reviews(
    session: Connection,
    *,
    door: str = "",
    outcome: str = "",
    namespace: str = "",
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ReviewView]:
    """Return calls, the newest first."""
    table = admission_review.c
    query = sa.select(*table).order_by(table.id.desc()).limit(limit + 1)
    if outcome:
        query = query.where(table.outcome == outcome)
    if door:
        query = query.where(table.door == door)
    if namespace:
        query = query.where(table.namespace == namespace)
    if cursor:
        query = query.where(table.id < decode_cursor(cursor, (int,))[0])
    rows = session.execute(query).all()
    return Page(
        tuple(ReviewView(**row._mapping) for row in rows[:limit]),
        encode_cursor(rows[limit - 1].id) if len(rows) > limit else None,
    )


@dataclass(frozen=True)
class DoorView:
    """The use of a door. ``last``: time of the newest call. ``day``: calls of the last 24 hours by outcome."""

    last: datetime | None
    day: Mapping[str, int]


def of_doors(session: Connection, doors: Sequence[str]) -> Mapping[str, DoorView]:
    """Return the use of each door."""
    table = admission_review.c
    query = sa.select(table.door, table.outcome, sa.func.count())
    query = query.where(table.at > moment(session) - timedelta(days=1)).group_by(table.door, table.outcome)
    day: dict[str, dict[str, int]] = {}
    for row in session.execute(query):
        day.setdefault(row[0], {})[row[1]] = row[2]
    found = {}
    for door in doors:
        # The newest call can be weeks old, so it is asked for by itself and not taken from the day's counts.
        newest = sa.select(table.at).where(table.door == door).order_by(table.id.desc()).limit(1)
        found[door] = DoorView(session.execute(newest).scalar(), day.get(door, {}))
    return found
