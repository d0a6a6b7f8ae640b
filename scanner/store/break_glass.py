"""Digests that a person let through in an emergency. Kept for ever: each is a decision that no policy made."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError
from scanner.store.schema import break_glass
from scanner.store.session import epoch, moment

_SHOWN = 50


@dataclass(frozen=True)
class BreakGlassView:
    """``active``: it still lets the digest through, by the database's clock."""

    id: str
    digest: str
    reason: str
    opened_by: str
    opened_at: datetime
    until: datetime  # ends by itself then
    ended_by: str  # empty: nobody ended it early
    ended_at: datetime | None  # None: nobody ended it early
    active: bool


def add(session: Connection, digest: str, reason: str, person: str, seconds: float) -> BreakGlassView:
    """Let a digest through from now on."""
    identifier, until = str(uuid.uuid4()), epoch(session) + seconds
    values = {"id": identifier, "digest": digest, "reason": reason, "opened_by": person, "until": until}
    session.execute(break_glass.insert().values(**values, opened_at=moment(session)))
    return get(session, identifier)


def end(session: Connection, identifier: str, person: str) -> BreakGlassView:
    """Raises NotFoundError for one that is not there, or has ended."""
    mine = sa.and_(break_glass.c.id == identifier, break_glass.c.ended_at.is_(None))
    # Conditional, so that of two persons who end it one gets an error, and the audit log has one entry.
    changed = break_glass.update().where(mine, break_glass.c.until > epoch(session))
    if session.execute(changed.values(ended_by=person, ended_at=moment(session))).rowcount != 1:
        raise NotFoundError("there is no such open break-glass: it has ended, or never existed")
    return get(session, identifier)


def get(session: Connection, identifier: str) -> BreakGlassView:
    """Raises NotFoundError."""
    found = _rows(session, break_glass.c.id == identifier)
    if not found:
        raise NotFoundError("there is no such break-glass")
    return found[0]


def list_overrides(session: Connection) -> Sequence[BreakGlassView]:
    """The newest, first."""
    return _rows(session, sa.true())


def in_force(session: Connection, digests: Sequence[str]) -> BreakGlassView | None:
    """The one that lets any of these digests through for the longest."""
    still = sa.and_(break_glass.c.ended_at.is_(None), break_glass.c.until > epoch(session))
    found = _rows(session, sa.and_(break_glass.c.digest.in_(digests), still))
    return max(found, key=lambda each: each.until, default=None)


def _rows(session: Connection, where: sa.ColumnElement[bool]) -> list[BreakGlassView]:
    rows = session.execute(
        sa.select(*break_glass.c).where(where).order_by(break_glass.c.opened_at.desc(), break_glass.c.id).limit(_SHOWN)
    ).all()
    if not rows:
        return []
    now = epoch(session)
    return [
        BreakGlassView(
            row.id,
            row.digest,
            row.reason,
            row.opened_by,
            row.opened_at,
            datetime.fromtimestamp(row.until, UTC),
            row.ended_by,
            row.ended_at,
            row.ended_at is None and row.until > now,
        )
        for row in rows
    ]
