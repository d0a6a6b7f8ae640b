"""The audit log: who did what, when, from which address, with the values before and after. Append-only.

Each entry contains a MAC over itself and the previous MAC. The key is not in the database (``Database.of``), so write
access to the database is not enough to forge an entry. Entries that are deleted at the end leave a valid chain; the
*anchors*, which are kept outside of the database, reveal that.

Retention may prune the oldest entries. A signed *checkpoint* then marks the beginning of the chain: the next entry must
refer to its hash, so entries cannot be removed in another way.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import audit_checkpoint, audit_log
from scanner.store.session import AUDIT_KEY, moment, put, take_lock

_LOCK = 0x0D0C4A0D17  # Advisory locks of PostgreSQL are numbers. These are arbitrary, and each used once.
# Rows read at once; the log may have millions.
_BATCH = 1000


@dataclass(frozen=True)
class Entry:
    id: int
    at: datetime
    actor: str  # the name at that time: a user may have been renamed or deleted since
    action: str
    object: str
    address: str  # IP address of the client; empty: not over HTTP
    detail: Mapping[str, Any]  # the members depend on the action; never a secret


@dataclass(frozen=True)
class Anchor:
    """Evidence that the chain once ended at entry ``seq``, with its own MAC."""

    seq: int
    hash: str  # of the entry: what the next entry's hash is computed over
    at: str  # when it was taken, RFC 3339
    mac: str  # by a key that the database does not have

    def to_line(self) -> str:
        return orjson.dumps({"seq": self.seq, "hash": self.hash, "at": self.at, "mac": self.mac}).decode()


@dataclass(frozen=True)
class Checkpoint:
    """The beginning of a pruned chain: ``entries`` entries are gone, the last one was ``seq`` with ``hash``, written at
    ``until``.
    """

    seq: int
    hash: str
    entries: int
    until: datetime
    mac: str


@dataclass(frozen=True)
class ChainVerification:
    """The result of a verification.

    ``broken``: the first entry that was changed or removed; None: the chain is intact over all ``entries``. ``pruned``:
    the number of older entries before the checkpoint.
    """

    entries: int
    broken: int | None = None
    why: str = ""
    pruned: int = 0


class BrokenChain(Exception):
    """An entry to be pruned was changed. Pruning it would destroy the evidence of tampering."""


@dataclass(frozen=True)
class Filter:
    """Criteria for entries; empty: any. ``action`` matches exactly or as a group (``policy`` matches ``policy.write``).

    ``since`` is inclusive, ``until`` exclusive.
    """

    actor: str = ""
    action: str = ""
    object: str = ""
    since: datetime | None = None
    until: datetime | None = None


def record(
    session: Connection, actor: Actor, action: Action, object_: str, *, detail: Mapping[str, Any] | None = None
) -> None:
    """Append an entry in the transaction of the change. ``detail`` must not contain secrets."""
    take_lock(session, _LOCK)  # two entries with the same predecessor would break the chain
    previous = session.execute(sa.select(audit_log.c.hash).order_by(audit_log.c.id.desc()).limit(1)).scalar() or ""
    values = {
        "at": moment(session),
        "actor": actor.name[:200],
        "action": action.value,
        "object": object_[:400],
        "address": actor.address[:64],
        "detail": dict(detail or {}),
    }
    key: Secret | None = session.get_execution_options().get(AUDIT_KEY)
    session.execute(audit_log.insert().values(**values, previous=previous, hash=_chain(previous, values, key)))


def verify(session: Connection, key: Secret | None = None, anchors: Iterable[Anchor] = ()) -> ChainVerification:
    """Verify all entries from the checkpoint on, and compare them with ``anchors``."""
    noted = {anchor.seq: anchor.hash for anchor in anchors}
    previous, count, last, pruned = "", 0, 0, 0
    start = checkpoint(session)
    if start is not None:
        if not hmac.compare_digest(start.mac, _checkpoint_mac(start, key)):
            return ChainVerification(0, start.seq, "the checkpoint of the pruned entries has an invalid MAC")
        if noted.get(start.seq, start.hash) != start.hash:
            return ChainVerification(0, start.seq, "it differs from its anchor")
        previous, last, pruned = start.hash, start.seq, start.entries
        # Anchors of pruned entries have nothing to be compared with. The checkpoint, which has its own MAC, stands
        # for them.
        noted = {seq: hash_ for seq, hash_ in noted.items() if seq > start.seq}
    for row in _rows(session):
        # An entry with a number before the checkpoint was inserted after the pruning.
        if row.id <= (start.seq if start else 0) or not _hash_matches(row, previous, key):
            return ChainVerification(
                count, int(row.id), "its MAC does not match its content and the previous entry", pruned
            )
        # The chain alone proves nothing against someone who has the key and writes it again from some entry on. The
        # anchors do.
        if noted.pop(row.id, row.hash) != row.hash:
            return ChainVerification(count, int(row.id), "it differs from its anchor", pruned)
        previous, count, last = row.hash, count + 1, int(row.id)
    if noted:
        return ChainVerification(
            count, last + 1, f"entries up to {max(noted)} were deleted: an anchor proves that they existed", pruned
        )
    if start is not None and not count:  # the newest entry is never pruned
        return ChainVerification(0, last + 1, "the entries after the checkpoint were deleted", pruned)
    return ChainVerification(count, pruned=pruned)


def checkpoint(session: Connection) -> Checkpoint | None:
    """Return the checkpoint, or None if nothing was pruned."""
    names = ("seq", "hash", "entries", "until", "mac")
    row = session.execute(sa.select(*(audit_checkpoint.c[name] for name in names))).first()
    return Checkpoint(*row) if row else None


def prunable(session: Connection, before: datetime) -> int:
    """Return the number of entries that `prune` would remove in total."""
    newest = sa.select(sa.func.max(audit_log.c.id)).scalar_subquery()
    first_kept = sa.select(sa.func.min(audit_log.c.id)).where(audit_log.c.at >= before).scalar_subquery()
    # Up to the first entry that is young enough, not each old one: a clock that was set back must not cut a hole into
    # the chain.
    old = sa.and_(audit_log.c.id < sa.func.coalesce(first_kept, newest), audit_log.c.id < newest)
    return int(session.execute(sa.select(sa.func.count()).where(old)).scalar_one())


def prune(session: Connection, before: datetime, limit: int) -> int:
    """Remove up to ``limit`` of the oldest entries and write a signed checkpoint. The newest entry is always kept.

    Returns the number of removed entries. Raises BrokenChain if one of them was changed: it must be investigated.
    """
    take_lock(session, _LOCK)
    key: Secret | None = session.get_execution_options().get(AUDIT_KEY)
    start = checkpoint(session)
    if start is not None and not hmac.compare_digest(start.mac, _checkpoint_mac(start, key)):
        raise BrokenChain("the checkpoint of the audit log has an invalid MAC")
    rows = session.execute(sa.select(*audit_log.c).order_by(audit_log.c.id).limit(limit + 1)).all()
    previous, last, count = start.hash if start else "", None, 0
    # The last row that was read is never removed. It may be the newest of all, which the verifier needs as the end of
    # the chain.
    for row in rows[:-1]:
        if row.at >= before:
            break
        if not _hash_matches(row, previous, key):
            raise BrokenChain(f"entry {row.id} of the audit log was changed")
        previous, last, count = row.hash, row, count + 1
    if last is None:
        return 0
    unsigned = Checkpoint(int(last.id), last.hash, count + (start.entries if start else 0), last.at, "")
    values = {
        "id": 1,
        "seq": unsigned.seq,
        "hash": unsigned.hash,
        "entries": unsigned.entries,
        "until": unsigned.until,
        "mac": _checkpoint_mac(unsigned, key),
    }
    put(session, audit_checkpoint, values, ("id",))  # first: a trigger refuses to delete entries after the checkpoint
    session.execute(audit_log.delete().where(audit_log.c.id <= last.id))
    return count


def _hash_matches(row: sa.Row[Any], previous: str, key: Secret | None) -> bool:
    values = {name: getattr(row, name) for name in ("at", "actor", "action", "object", "address", "detail")}
    return row.previous == previous and hmac.compare_digest(row.hash, _chain(previous, values, key))


def anchor(session: Connection, key: Secret) -> Anchor | None:
    """Return an anchor for the current end of the chain, or None if the log is empty."""
    newest = sa.select(audit_log.c.id, audit_log.c.hash).order_by(audit_log.c.id.desc()).limit(1)
    row = session.execute(newest).first()
    if row is None:
        return None
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Anchor(int(row.id), row.hash, at, _anchor_mac(int(row.id), row.hash, at, key))


def is_ours(noted: Anchor, key: Secret) -> bool:
    """Return whether the anchor's MAC is valid."""
    return hmac.compare_digest(noted.mac, _anchor_mac(noted.seq, noted.hash, noted.at, key))


def list_entries(
    session: Connection, chosen: Filter = Filter(), *, cursor: str | None = None, limit: int = 50
) -> Page[Entry]:
    """Return entries, the newest first."""
    query = _filtered(chosen).order_by(audit_log.c.id.desc()).limit(limit + 1)
    if cursor:
        query = query.where(audit_log.c.id < decode_cursor(cursor, (int,))[0])
    rows = session.execute(query).all()
    return Page(
        tuple(_entry(row) for row in rows[:limit]), encode_cursor(rows[limit - 1].id) if len(rows) > limit else None
    )


def lines(session: Connection, chosen: Filter = Filter()) -> Iterator[bytes]:
    """Yield entries as JSON lines, the oldest first, with the hashes that another program needs to verify the chain."""
    for row in _batches(session, _filtered(chosen)):
        at = row.at.isoformat(timespec="microseconds")
        yield orjson.dumps(
            {**{str(name): value for name, value in row._mapping.items()}, "at": at}, option=orjson.OPT_APPEND_NEWLINE
        )


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(row.id, row.at, row.actor, row.action, row.object, row.address, row.detail)


def _filtered(chosen: Filter) -> sa.Select[Any]:
    query = sa.select(*audit_log.c)
    if chosen.actor:
        query = query.where(audit_log.c.actor == chosen.actor)
    if chosen.action:
        query = query.where(
            sa.or_(
                audit_log.c.action == chosen.action, audit_log.c.action.startswith(f"{chosen.action}.", autoescape=True)
            )
        )
    if chosen.object:
        query = query.where(audit_log.c.object == chosen.object)
    if chosen.since:
        query = query.where(audit_log.c.at >= chosen.since)
    if chosen.until:
        query = query.where(audit_log.c.at < chosen.until)
    return query


def _rows(session: Connection) -> Iterator[sa.Row[Any]]:
    return _batches(session, sa.select(*audit_log.c))


def _batches(session: Connection, query: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
    """Yield all rows of a query by id, in batches, because the log may not fit into memory."""
    last = 0
    while True:
        rows = session.execute(query.where(audit_log.c.id > last).order_by(audit_log.c.id).limit(_BATCH)).all()
        yield from rows
        if len(rows) < _BATCH:
            return
        last = rows[-1].id


def _chain(previous: str, values: Mapping[str, Any], key: Secret | None) -> str:
    at: datetime = values["at"]
    document = {**values, "at": at.isoformat(timespec="microseconds")}
    # Sorted keys: a database returns the members of a JSON column in an order of its own.
    data = previous.encode() + orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return hmac.new(key.reveal().encode(), data, "sha256").hexdigest() if key else hashlib.sha256(data).hexdigest()


def _anchor_mac(seq: int, hash_: str, at: str, key: Secret) -> str:
    return hmac.new(key.reveal().encode(), f"anchor|{seq}|{hash_}|{at}".encode(), "sha256").hexdigest()


def _checkpoint_mac(found: Checkpoint, key: Secret | None) -> str:
    until = found.until.isoformat(timespec="microseconds")
    data = f"checkpoint|{found.seq}|{found.hash}|{found.entries}|{until}".encode()
    return hmac.new(key.reveal().encode(), data, "sha256").hexdigest() if key else hashlib.sha256(data).hexdigest()
