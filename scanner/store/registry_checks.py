"""Checks of registries: requested, claimed by a worker with a lease, and ended with a posture.

A registry has at most one unfinished check. Rows are the queue; messages only wake workers. Decisions use the newest
posture of a registry; older ones are its history.
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
from scanner.model.notification import Event, EventKind, Level
from scanner.model.posture import Posture
from scanner.store import outbox
from scanner.store.schema import listing, registry, registry_check, verdict
from scanner.store.session import epoch, moment

LEASE_SECONDS = 180.0  # much longer than a probe, so it needs no renewal
_TRIES = 3  # workers that a check may lose
_KEPT_CHECKS = 100  # checks of a registry's history
_AGAIN_AFTER = 900.0  # seconds after a failed check
_c = registry_check.c


@dataclass(frozen=True)
class CheckView:
    """One check. ``state``: queued, running, done or failed. ``posture`` is None unless it is done.

    ``failed`` and ``incomplete`` are numbers of results.
    """

    id: str
    registry_id: str
    state: str
    requested_by: str
    created_at: datetime
    ended_at: datetime | None  # None: not yet
    reason: str  # a slug; empty: it did not fail
    message: str
    failed: int
    incomplete: int
    posture: Posture | None


@dataclass(frozen=True)
class Claim:
    """A claimed check. ``attempt`` is its fence: a worker that lost the lease cannot end it."""

    id: str
    registry_id: str
    attempt: int


def request(session: Connection, registry_id: str, requested_by: str) -> CheckView:
    """Request a check, or return the unfinished one. Raises NotFoundError."""
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
    """Request checks of registries whose newest one will soon be too old. Returns the number of requests."""
    now = epoch(session)
    newest = (
        sa.select(_c.registry_id, sa.func.max(_c.created_epoch).label("at")).group_by(_c.registry_id).subquery("newest")
    )
    due = sa.or_(
        newest.c.at.is_(None),
        newest.c.at < now - max_age_hours * 1800,  # at half of the maximum age, so that evidence never expires
        sa.and_(_c.state == "failed", newest.c.at < now - _AGAIN_AFTER),
    )
    query = (
        sa.select(registry.c.id)
        .outerjoin(newest, newest.c.registry_id == registry.c.id)
        .outerjoin(registry_check, sa.and_(_c.registry_id == registry.c.id, _c.created_epoch == newest.c.at))
        .where(due, sa.or_(_c.id.is_(None), _c.ended_at.is_not(None)))
    )
    found = sorted(row.id for row in session.execute(query))  # several workers insert at once: avoid deadlocks
    for registry_id in found:
        _insert(session, registry_id, "schedule")
    return len(found)


def is_any_open(session: Connection) -> bool:
    """Return whether there is an unfinished check."""
    return session.execute(sa.select(_c.id).where(_c.ended_at.is_(None)).limit(1)).first() is not None


def claim(session: Connection) -> Claim | None:
    """Claim the oldest check that is queued or whose worker died. None: there is none."""
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
        # Three workers died: probably because of this registry.
        fail(
            session,
            Claim(row.id, row.registry_id, row.attempt),
            "worker_lost",
            "every attempt ended with the worker's death",
        )
        return None
    # Conditional on the attempt that was read: of two workers that chose the same check, one gets it.
    taken = session.execute(
        registry_check.update()
        .where(_c.id == row.id, _c.attempt == row.attempt, _c.ended_at.is_(None))
        .values(state="running", attempt=held.attempt, lease_until=now + LEASE_SECONDS)
    )
    return held if taken.rowcount == 1 else None


def finish(session: Connection, held: Claim, found: Posture) -> None:
    """Record the posture. Raises LeaseLost if another worker has the check."""
    before = latest(session, held.registry_id)
    _end(session, held, state="done", **_values(found))
    _settle(session, held.registry_id, before, found)


def fail(session: Connection, held: Claim, reason: str, message: str) -> None:
    """Record a failure. Raises LeaseLost."""
    _end(session, held, state="failed", reason=reason[:64], message=message[:1000])


def record(session: Connection, registry_id: str, found: Posture, requested_by: str) -> None:
    """Record the posture that a scan gathered from a registry without one. An unfinished check continues."""
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
        raise LeaseLost("another worker has taken over this check")
    _prune(session, held.registry_id)


def _settle(session: Connection, registry_id: str, before: Posture | None, found: Posture) -> None:
    """Mark the decisions about the registry's images as outdated if the posture changed. Write an event if it is worse
    than before.
    """
    if before is not None and (worse := _newly_failed(before, found)):
        owner = session.execute(sa.select(registry.c.project).where(registry.c.id == registry_id)).scalar() or ""
        outbox.add(session, [_worse(registry_id, owner, found.host, worse)])
    if before is None or before.results != found.results:
        # Only if the results differ. The posture has a new time with each check, so comparing it as a whole would
        # renew all decisions every few hours.
        session.execute(verdict.update().where(_of_host(verdict.c.repository, found.host)).values(valid_until=0.0))


def _newly_failed(before: Posture, found: Posture) -> list[str]:
    """The checks that fail now and did not before."""
    former = {result.check for result in before.results if isinstance(result.outcome, Failed)}
    return [r.check for r in found.results if isinstance(r.outcome, Failed) and r.check not in former]


def _worse(registry_id: str, project: str, host: str, checks: list[str]) -> Event:
    return Event(
        EventKind.REGISTRY_WORSE,
        host,
        f"More checks of the registry {host} fail",
        project,
        item=", ".join(checks[:10]),
        level=Level.ERROR,
        path=f"/registries/{registry_id}",
        data={"host": host, "checks": checks[:50]},
    )


def _prune(session: Connection, registry_id: str) -> None:
    """Delete old checks except the newest posture, which decisions use even if all later checks failed."""
    own = _c.registry_id == registry_id
    newest = sa.select(_c.id).where(own, _c.document.is_not(None)).order_by(_c.created_epoch.desc(), _c.id).limit(1)
    kept = session.execute(newest).scalar()
    old = sa.select(_c.id).where(own, _c.ended_at.is_not(None)).order_by(_c.created_epoch.desc(), _c.id)
    stale = [row.id for row in session.execute(old.offset(_KEPT_CHECKS).limit(1000)) if row.id != kept]
    if stale:
        session.execute(registry_check.delete().where(_c.id.in_(stale)))


def latest(session: Connection, registry_id: str, at: datetime | None = None) -> Posture | None:
    """Return the newest posture of a registry, or None; ``at``: the newest by then."""
    query = sa.select(_c.document).where(_c.registry_id == registry_id, _c.document.is_not(None))
    if at is not None:
        query = query.where(_c.created_at <= at)
    return _posture(session.execute(query.order_by(_c.created_epoch.desc(), _c.id).limit(1)).scalar())


def of_host(session: Connection, host: str, at: datetime | None = None) -> Posture | None:
    """Return the newest posture of the registry with this host, or None; ``at``: the newest by then."""
    registry_id = session.execute(sa.select(registry.c.id).where(registry.c.host == host)).scalar()
    return latest(session, registry_id, at) if registry_id else None


def history(session: Connection, registry_id: str, limit: int = 20) -> tuple[CheckView, ...]:
    """Return checks, the newest first."""
    query = sa.select(*_c).where(_c.registry_id == registry_id).order_by(_c.created_epoch.desc(), _c.id).limit(limit)
    return tuple(_view(row) for row in session.execute(query).mappings())


def newest(session: Connection) -> Mapping[str, CheckView]:
    """Return the newest successful check by registry id."""
    at = sa.func.max(_c.created_epoch).label("at")
    last = sa.select(_c.registry_id, at).where(_c.state == "done").group_by(_c.registry_id).subquery("last")
    query = sa.select(*_c).join(last, sa.and_(last.c.registry_id == _c.registry_id, last.c.at == _c.created_epoch))
    return {row["registry_id"]: _view(row) for row in session.execute(query).mappings()}


def get(session: Connection, identifier: str) -> CheckView:
    """Return the check. Raises NotFoundError."""
    return _one(session, _c.id == identifier)


def repository_of(session: Connection, host: str) -> str:
    """Return the registry's last scanned repository, for probes that need one. Empty: none."""
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
        raise NotFoundError("there is no such check")
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
