"""The outbox: what happened, written in the transaction in which it happened.

`add` is the only way in, for stores and use cases alike: an event is recorded if and only if the change is. Workers
turn events into messages after the commit (`scanner.services.notifications`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError
from scanner.model.notification import Event, EventKind, Level
from scanner.store.schema import outbox
from scanner.store.session import moment

SUBJECT_LENGTH = 300
_SHORT, _LONG = 300, 700


@dataclass(frozen=True)
class Row:
    """An event in the outbox. ``event_id`` is what receivers see."""

    number: int  # the order in which events were committed
    event_id: str
    event: Event
    at: datetime


def add(session: Connection, events: Iterable[Event]) -> int:
    """Record events. Returns how many."""
    now = moment(session)
    rows = [
        {
            "event_id": str(uuid.uuid4()),
            "kind": event.kind.value,
            "subject": event.subject[:SUBJECT_LENGTH],
            "project": event.project,
            "body": to_json(event),
            "created_at": now,
        }
        for event in events
    ]
    if rows:
        session.execute(outbox.insert(), rows)
    return len(rows)


def unrouted_events(session: Connection, *, limit: int) -> tuple[Row, ...]:
    """Events that are no messages yet, in their order."""
    columns = (outbox.c.id, outbox.c.event_id, outbox.c.kind, outbox.c.subject, outbox.c.project, outbox.c.body)
    query = sa.select(*columns, outbox.c.created_at).where(outbox.c.routed_at.is_(None))
    return tuple(
        Row(row.id, row.event_id, from_json(row.kind, row.subject, row.project, row.body), row.created_at)
        for row in session.execute(query.order_by(outbox.c.id).limit(limit))
    )


def mark_routed(session: Connection, rows: Sequence[Row]) -> None:
    """They are messages now. Raises ConflictError where another worker was first: then nothing may be written."""
    those = sa.and_(outbox.c.id.in_([row.number for row in rows]), outbox.c.routed_at.is_(None))
    # All or none: a partly routed batch would send some of its events twice.
    if session.execute(outbox.update().where(those).values(routed_at=moment(session))).rowcount != len(rows):
        raise ConflictError("another worker was first", reason="edited_meanwhile")


def oldest_unrouted(session: Connection) -> datetime | None:
    """Since when an event waits to become a message; None: none does."""
    query = sa.select(outbox.c.created_at).where(outbox.c.routed_at.is_(None)).order_by(outbox.c.id).limit(1)
    return session.execute(query).scalar()


def to_json(event: Event) -> dict[str, Any]:
    """What is beside the columns."""
    return {
        "headline": event.headline[:_LONG],
        "item": event.item[:_LONG],
        "group": event.group[:_SHORT],
        "level": event.level.value,
        "resolved": event.resolved,
        "path": event.path[:_LONG],
        "data": dict(event.data),
    }


def from_json(kind: str, subject: str, project: str, body: dict[str, Any]) -> Event:
    return Event(
        EventKind(kind),
        subject,
        body["headline"],
        project,
        body["group"],
        body["item"],
        Level(body["level"]),
        body["resolved"],
        body["path"],
        body["data"],
    )
