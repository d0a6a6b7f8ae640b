"""What holds now and was told. A condition that lasts is told when it begins and when it ends, not at every look."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.notification import EventKind
from scanner.store.schema import alert
from scanner.store.session import insert_new, moment

Key = tuple[str, str]  # project, subject


def open_(session: Connection, kind: EventKind) -> set[Key]:
    """What of this kind holds, as far as it was told."""
    query = sa.select(alert.c.project, alert.c.subject).where(alert.c.kind == kind.value)
    return {(row.project, row.subject) for row in session.execute(query)}


def begin(session: Connection, kind: EventKind, keys: Iterable[Key]) -> None:
    """These hold from now on. Raises ConflictError where another worker told one of them at this moment."""
    now = moment(session)
    rows = [{"kind": kind.value, "project": p, "subject": s[:300], "since": now} for p, s in keys]
    if rows:
        session.execute(alert.insert(), rows)


def note(session: Connection, kind: EventKind, keys: Iterable[Key]) -> None:
    """These hold; some may be known already."""
    now = moment(session)
    rows = [{"kind": kind.value, "project": p, "subject": s[:300], "since": now} for p, s in sorted(keys)]
    insert_new(session, alert, rows)


def end(session: Connection, kind: EventKind, keys: Iterable[Key]) -> None:
    """These hold no longer."""
    for project, subject in keys:
        mine = (alert.c.kind == kind.value, alert.c.project == project, alert.c.subject == subject[:300])
        session.execute(alert.delete().where(*mine))
