"""Examinations of registries: asked for, claimed by a worker under a lease, ended with what was found.

One is open at a time.

A row is the truth and a nudge is a nudge, as with scans. The newest posture of a registry is what decisions rest on;
older ones stay to show what changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, RowMapping

from scanner.errors import LeaseLost, NotFoundError
from scanner.model.finding import Failed, Incomplete
from scanner.model.posture import Posture
from scanner.store.schema import listing, registry, registry_check, verdict
from scanner.store.session import epoch, moment

LEASE_SECONDS = 180.0  # far longer than a probe may take
_TRIES = 3
_KEPT = 100
_AGAIN_AFTER = 900.0  # a registry that could not be examined is tried again this much later
_c = registry_check.c


@dataclass(frozen=True)
class CheckView:
    """One examination. ``posture`` is None until it ended well; ``state``: queued, running, done, failed."""

    id: str
    registry_id: str
    state: str
    requested_by: str
    created_at: datetime
    ended_at: datetime | None
    reason: str
    message: str
    failed: int
    incomplete: int
    posture: Posture | None


@dataclass(frozen=True)
class Claim:
    """A worker's hold on an examination. ``attempt`` is its fence: a worker that was too slow ends nothing."""

    id: str
    registry_id: str
    attempt: int


def request(session: Connection, registry_id: str, requested_by: str) -> CheckView:
    """Ask for an examination; one that is open already is the one that is meant. Raises NotFoundError."""
    if session.execute(sa.select(registry.c.id).where(registry.c.id == registry_id)).first() is None:
        raise NotFoundError("there is no such registry")
    _insert(session, registry_id, requested_by)
    return _one(session, _c.registry_id == registry_id, _c.ended_at.is_(None))


def _insert(session: Connection, registry_id: str, requested_by: str, **more: object) -> str:
    identifier = str(uuid.uuid4())
    kind = sqlite if session.dialect.name == "sqlite" else postgresql
    values = {
        "id": identifier,
        "registry_id": registry_id,
        "state": "queued",
        "requested_by": requested_by,
        "attempt": 0,
        "created_at": moment(session),
        "created_epoch": epoch(session),
        "reason": "",
        "message": "",
        "failed": 0,
        "incomplete": 0,
        **more,
    }
    session.execute(kind.insert(registry_check).values(**values).on_conflict_do_nothing())
    return identifier


def schedule(session: Connection, max_age_hours: float) -> int:
    """Ask for every registry whose newest examination will soon be too old to rest on. Returns how many."""
    now = epoch(session)
    newest = (
        sa.select(_c.registry_id, sa.func.max(_c.created_epoch).label("at")).group_by(_c.registry_id).subquery("newest")
    )
    due = sa.or_(
        newest.c.at.is_(None),
        newest.c.at < now - max_age_hours * 1800,  # at half its age, so that it is new before it is old
        sa.and_(_c.state == "failed", newest.c.at < now - _AGAIN_AFTER),
    )
    query = (
        sa.select(registry.c.id)
        .outerjoin(newest, newest.c.registry_id == registry.c.id)
        .outerjoin(registry_check, sa.and_(_c.registry_id == registry.c.id, _c.created_epoch == newest.c.at))
        .where(due, sa.or_(_c.id.is_(None), _c.ended_at.is_not(None)))
    )
    found = sorted(row.id for row in session.execute(query))  # several workers schedule at once
    for registry_id in found:
        _insert(session, registry_id, "schedule")
    return len(found)


def is_any_open(session: Connection) -> bool:
    """Whether there may be something to claim."""
    return session.execute(sa.select(_c.id).where(_c.ended_at.is_(None)).limit(1)).first() is not None


def claim(session: Connection) -> Claim | None:
    """Take the oldest examination that waits, or whose worker vanished. None: there is none."""
    now = epoch(session)
    free = sa.or_(_c.state == "queued", sa.and_(_c.state == "running", _c.lease_until < now))
    query = (
        sa.select(_c.id, _c.registry_id, _c.attempt)
        .where(_c.ended_at.is_(None), free)
        .order_by(_c.created_epoch)
        .limit(1)
    )
    row = session.execute(query).first()
    if row is None:
        return None
    held = Claim(row.id, row.registry_id, row.attempt + 1)
    if held.attempt > _TRIES:
        # It has cost three workers: whoever comes fourth only writes it down.
        fail(
            session, Claim(row.id, row.registry_id, row.attempt), "worker_lost", "every attempt ended without an answer"
        )
        return None
    taken = session.execute(
        registry_check.update()
        .where(_c.id == row.id, _c.attempt == row.attempt, _c.ended_at.is_(None))
        .values(state="running", attempt=held.attempt, lease_until=now + LEASE_SECONDS)
    )
    return held if taken.rowcount == 1 else None


def finish(session: Connection, held: Claim, found: Posture) -> None:
    """Record what was found. Raises LeaseLost when it is another worker's by now."""
    before = latest(session, held.registry_id)
    _end(session, held, state="done", **_values(found))
    _settle(session, held.registry_id, before, found)


def fail(session: Connection, held: Claim, reason: str, message: str) -> None:
    """Record that nothing could be found out, and why. Raises LeaseLost."""
    _end(session, held, state="failed", reason=reason[:64], message=message[:1000])


def record(session: Connection, registry_id: str, found: Posture, requested_by: str) -> None:
    """What a scan found before its registry was first used.

    An examination that is open goes on; its answer will be newer.
    """
    before = latest(session, registry_id)
    _insert(session, registry_id, requested_by, state="done", ended_at=moment(session), **_values(found))
    _settle(session, registry_id, before, found)


def _values(found: Posture) -> dict[str, object]:
    outcomes = [result.outcome for result in found.results]
    return {
        "failed": sum(isinstance(outcome, Failed) for outcome in outcomes),
        "incomplete": sum(isinstance(outcome, Incomplete) for outcome in outcomes),
        "document": _adapter().dump_json(found).decode(),
    }


def _end(session: Connection, held: Claim, **values: object) -> None:
    ended = session.execute(
        registry_check.update()
        .where(_c.id == held.id, _c.attempt == held.attempt, _c.ended_at.is_(None))
        .values(ended_at=moment(session), lease_until=None, **values)
    )
    if ended.rowcount != 1:
        raise LeaseLost("the examination is another worker's by now")
    _prune(session, held.registry_id)


def _settle(session: Connection, registry_id: str, before: Posture | None, found: Posture) -> None:
    """Where something changed, decisions about the registry's images are to be made anew."""
    if before is None or before.results != found.results:
        session.execute(verdict.update().where(_of_host(verdict.c.repository, found.host)).values(valid_until=0.0))


def _prune(session: Connection, registry_id: str) -> None:
    """History has an end; what decisions rest on stays, however often the registry was not there since."""
    own = _c.registry_id == registry_id
    newest = sa.select(_c.id).where(own, _c.document.is_not(None)).order_by(_c.created_epoch.desc(), _c.id).limit(1)
    kept = session.execute(newest).scalar()
    old = sa.select(_c.id).where(own, _c.ended_at.is_not(None)).order_by(_c.created_epoch.desc(), _c.id)
    stale = [row.id for row in session.execute(old.offset(_KEPT).limit(1000)) if row.id != kept]
    if stale:
        session.execute(registry_check.delete().where(_c.id.in_(stale)))


def latest(session: Connection, registry_id: str) -> Posture | None:
    """The newest posture of a registry."""
    query = sa.select(_c.document).where(_c.registry_id == registry_id, _c.document.is_not(None))
    return _posture(session.execute(query.order_by(_c.created_epoch.desc(), _c.id).limit(1)).scalar())


def of_host(session: Connection, host: str) -> Posture | None:
    """The newest posture of the configured registry of this name."""
    registry_id = session.execute(sa.select(registry.c.id).where(registry.c.host == host)).scalar()
    return latest(session, registry_id) if registry_id else None


def history(session: Connection, registry_id: str, limit: int = 20) -> tuple[CheckView, ...]:
    """Examinations, newest first."""
    query = sa.select(*_c).where(_c.registry_id == registry_id).order_by(_c.created_epoch.desc(), _c.id).limit(limit)
    return tuple(_view(row) for row in session.execute(query).mappings())


def newest(session: Connection) -> Mapping[str, CheckView]:
    """The newest examination that found something out, of each registry that has one."""
    at = sa.func.max(_c.created_epoch).label("at")
    last = sa.select(_c.registry_id, at).where(_c.state == "done").group_by(_c.registry_id).subquery("last")
    query = sa.select(*_c).join(last, sa.and_(last.c.registry_id == _c.registry_id, last.c.at == _c.created_epoch))
    return {row["registry_id"]: _view(row) for row in session.execute(query).mappings()}


def get(session: Connection, identifier: str) -> CheckView:
    """Raises NotFoundError."""
    return _one(session, _c.id == identifier)


def repository_of(session: Connection, host: str) -> str:
    """A repository of the registry that was scanned lately, to ask about. Empty: none."""
    query = sa.select(listing.c.repository).where(_of_host(listing.c.repository, host))
    name = session.execute(query.order_by(listing.c.scanned_epoch.desc()).limit(1)).scalar()
    return str(name).partition("/")[2] if name else ""


def _of_host(column: sa.Column[str], host: str) -> sa.ColumnElement[bool]:
    return column.startswith(f"{host}/", autoescape=True)


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Posture]:
    return TypeAdapter(Posture)


def _posture(document: str | None) -> Posture | None:
    return _adapter().validate_json(document) if document else None


def _one(session: Connection, *where: sa.ColumnElement[bool]) -> CheckView:
    row = session.execute(sa.select(*_c).where(*where)).mappings().first()
    if row is None:
        raise NotFoundError("there is no such examination")
    return _view(row)


def _view(row: RowMapping) -> CheckView:
    return CheckView(
        row["id"],
        row["registry_id"],
        row["state"],
        row["requested_by"],
        row["created_at"],
        row["ended_at"],
        row["reason"],
        row["message"],
        row["failed"],
        row["incomplete"],
        _posture(row["document"]),
    )
