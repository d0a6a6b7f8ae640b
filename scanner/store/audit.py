"""The audit log: who did what, when, from where. Only ever added to, each entry chained to the one before by its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import audit_log
from scanner.store.session import alone, moment

_LOCK = 0x0D0C4A0D17


@dataclass(frozen=True)
class Entry:
    id: int
    at: datetime
    actor: str
    action: str
    object: str
    address: str
    detail: Mapping[str, Any]


def record(
    session: Connection,
    actor: str,
    action: str,
    object_: str,
    *,
    address: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry, in the transaction of what it tells of. ``detail`` must hold no secret."""
    alone(session, _LOCK)  # the chain must not fork
    previous = session.execute(sa.select(audit_log.c.hash).order_by(audit_log.c.id.desc()).limit(1)).scalar() or ""
    values = {
        "at": moment(session),
        "actor": actor[:200],
        "action": action,
        "object": object_[:400],
        "address": address[:64],
        "detail": dict(detail or {}),
    }
    session.execute(audit_log.insert().values(**values, previous=previous, hash=_chain(previous, values)))


def verify(session: Connection) -> int | None:
    """The id of the first entry that does not fit its predecessor; None when the whole chain holds."""
    previous = ""
    for row in session.execute(sa.select(*audit_log.c).order_by(audit_log.c.id)):
        values = {name: getattr(row, name) for name in ("at", "actor", "action", "object", "address", "detail")}
        if row.previous != previous or row.hash != _chain(previous, values):
            return int(row.id)
        previous = row.hash
    return None


def list_(session: Connection, *, cursor: str | None = None, limit: int = 50) -> Page[Entry]:
    """Entries, newest first."""
    query = sa.select(*audit_log.c).order_by(audit_log.c.id.desc()).limit(limit + 1)
    if cursor:
        query = query.where(audit_log.c.id < decode_cursor(cursor, (int,))[0])
    rows = session.execute(query).all()
    items = tuple(Entry(r.id, r.at, r.actor, r.action, r.object, r.address, r.detail) for r in rows[:limit])
    return Page(items, encode_cursor(rows[limit - 1].id) if len(rows) > limit else None)


def _chain(previous: str, values: Mapping[str, Any]) -> str:
    at: datetime = values["at"]
    document = {**values, "at": at.isoformat(timespec="microseconds")}
    return hashlib.sha256(previous.encode() + orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
