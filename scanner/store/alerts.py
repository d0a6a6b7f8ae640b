"""Conditions that are met now and have been reported. They are reported when they begin and end, not at every check."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.notification import EventKind
from scanner.store.schema import alert
from scanner.store.session import insert_new, moment

Key = tuple[str, str]  # project, subject


def open_(session: Connection, kind: EventKind) -> set[Key]:
    """Return the reported conditions of a kind that are still met."""
    query = sa.select(alert.c.project, alert.c.subject).where(alert.c.kind == kind.value)
    return {(row.project, row.subject) for row in session.execute(query)}


def begin(session: Connection, kind: EventKind, keys: Iterable[Key]) -> None:
    """Record conditions that began. Raises ConflictError if another worker has just reported one of them."""
    now = moment(session)
    rows = [{"kind": kind.value, "project": p, "subject": s[:300], "since": now} for p, s in keys]
    if rows:
        session.execute(alert.insert(), rows)


def note(session: Connection, kind: EventKind, keys: Iterable[Key]) -> None:
    """Record conditions that are met. Known ones are ignored."""
    now = moment(session)
    # Sorted, so that two workers that note the same conditions lock them in one order.
    rows = [{"kind": kind.value, "project": p, "subject": s[:300], "since": now} for p, s in sorted(keys)]
    insert_new(session, alert, rows)


def end(session: Connection, kind: EventKind, keys: Iterable[Key]) -> None:
    """Remove conditions that have ended."""
    for project, subject in keys:
        mine = (alert.c.kind == kind.value, alert.c.project == project, alert.c.subject == subject[:300])
        session.execute(alert.delete().where(*mine))
