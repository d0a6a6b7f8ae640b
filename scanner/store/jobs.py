"""Jobs: work that is not a scan, under the same leases and fences.

Of each kind one runs at a time, whoever works on it.

Like a scan's, a job's row is the promise: it ends in a terminal state whatever dies, and what its body had committed
stays done. A body is therefore written so that beginning again finds only what is left.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from scanner.errors import ConflictError, NotFoundError
from scanner.model.scan import Progress, ScanState, Stage
from scanner.store.leases import ACTIVE, ATTEMPTS, Leases, locked, noted
from scanner.store.schema import job
from scanner.store.session import epoch, moment

UPDATE, REMATCH, REQUEUE = "advisories-update", "rematch", "requeue"
CLAIR = "clair-notification"
RETENTION = "retention"  # the database lets decisions go only while one of these runs: migration 0021
INVARIANTS = "invariants"  # its record only: what `check_invariants` of the maintenance found
KINDS = (UPDATE, REMATCH, REQUEUE, CLAIR)
ANYWHERE = "any"  # a key: whoever can do it may
_LEASES = Leases(job)
_CLAIM_LOCK, _SWEEP_LOCK = 0x0D0C4A0D1A, 0x0D0C4A0D1B


@dataclass(frozen=True)
class Job:
    """A worker's hold on a job. Every write names ``fence``."""

    id: str
    fence: int
    kind: str
    parameters: Mapping[str, Any]
    attempt: int = 0


@dataclass(frozen=True)
class JobView:
    """A job as others see it."""

    id: str
    kind: str
    key: str
    parameters: Mapping[str, Any]
    requested_by: str
    state: ScanState
    progress: Progress | None
    reason: str
    message: str
    attempt: int
    lost: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def request(
    session: Connection, kind: str, key: str, requested_by: str, parameters: Mapping[str, Any] | None = None
) -> str:
    """Ask for a job, or join the one of the same kind and key that has not ended. Returns its id."""
    now = epoch(session)
    identifier = str(uuid.uuid4())
    for _ in range(5):
        known = session.execute(
            sa.select(job.c.id).where(job.c.kind == kind, job.c.key == key, job.c.state.in_(ACTIVE))
        ).scalar()
        if known is not None:
            return str(known)
        try:
            with session.begin_nested():
                session.execute(
                    job.insert().values(
                        id=identifier,
                        kind=kind,
                        key=key,
                        parameters=dict(parameters or {}),
                        requested_by=requested_by[:200],
                        state=ScanState.QUEUED,
                        next_at=now,
                        created_epoch=now,
                        created_at=moment(session),
                    )
                )
        except IntegrityError:
            continue  # somebody else asked for it between our look and our insert
        return identifier
    raise ConflictError("the same job was asked for too often at once", hint="ask again")


def claim(
    session: Connection, worker: str, kinds: Mapping[str, Collection[str] | None], lease_seconds: float
) -> Job | None:
    """Take the oldest job whose time has come and of whose kind none runs.

    ``kinds``: kind -> the keys it may have, None: any.

    None: there is nothing to do.
    """
    if not locked(session, _CLAIM_LOCK):
        return None
    running = sa.select(job.c.kind).where(job.c.state == ScanState.RUNNING)
    ready = sa.select(job.c.id).where(
        job.c.state == ScanState.QUEUED,
        job.c.next_at <= epoch(session),
        sa.or_(
            *(
                sa.and_(job.c.kind == kind, sa.true() if keys is None else job.c.key.in_(list(keys)))
                for kind, keys in kinds.items()
            )
        ),
        job.c.kind.not_in(running),
    )
    row = _LEASES.take(session, ready.order_by(job.c.created_epoch), worker, lease_seconds, stage="")
    return Job(row["id"], row["fence"], row["kind"], row["parameters"], row["attempt"]) if row else None


def check(session: Connection, held: Job, progress: Progress | None = None) -> None:
    """In a transaction that writes for the job: raises LeaseLost when it is another worker's by now, or was
    cancelled.
    """
    values = {"stage": progress.stage, "progress": noted(progress)} if progress else {"worker": job.c.worker}
    _LEASES.write(session, held.id, held.fence, **values)


def keep(session: Connection, held: Job, parameters: Mapping[str, Any]) -> None:
    """Remember how far it is for whoever goes on, in the transaction that did it. Raises LeaseLost."""
    _LEASES.write(session, held.id, held.fence, parameters=dict(parameters))


def heartbeat(session: Connection, held: Job, lease_seconds: float, progress: Progress | None = None) -> None:
    """Keep the lease, and say how far it is. Raises LeaseLost."""
    _LEASES.renew(session, held.id, held.fence, lease_seconds, progress)


def finish(session: Connection, held: Job, message: str = "") -> None:
    """Done. ``message`` says what came of it."""
    _end(session, held, ScanState.DONE, "", message)


def fail(session: Connection, held: Job, reason: str, message: str) -> None:
    """Failed for good: trying again would fail again."""
    _end(session, held, ScanState.FAILED, reason, message)


def retry(session: Connection, held: Job, reason: str, message: str, retry_after: float | None = None) -> None:
    """Failed in a way that may pass: wait and try again, at most three times in all, then dead."""
    attempt = held.attempt + 1
    if attempt >= ATTEMPTS:
        _end(session, held, ScanState.DEAD, reason, message, attempt=attempt)
        return
    _LEASES.wait(session, held.id, held.fence, attempt, reason, message, retry_after)


def hand_back(session: Connection, held: Job) -> None:
    """Give the job back, as a worker does that is told to stop: neither ``attempt`` nor ``lost`` counts it.

    Raises LeaseLost.
    """
    _LEASES.hand_back(session, held.id, held.fence)


def _end(session: Connection, held: Job, state: ScanState, reason: str, message: str, **more: Any) -> None:
    _LEASES.end(session, held.id, held.fence, state, reason, message, **more)


def cancel(session: Connection, job_id: str) -> bool:
    """End an active job; raising the fence takes it from its worker.

    What it had committed stays. False when it had ended already.
    """
    return bool(_LEASES.cancel(session, job.c.id == job_id, "cancelled", "cancelled by a person"))


def supersede(session: Connection, kind: str, key: str) -> int:
    """End those jobs of a kind that have another key and have not ended: what they would do is of no use any more."""
    others = sa.and_(job.c.kind == kind, job.c.key != key)
    return len(_LEASES.cancel(session, others, "superseded", "a newer one took its place"))


def sweep(session: Connection) -> int:
    """Put back what lost its worker, end what loses every one, wake what has waited. Returns how many were put back."""
    if not locked(session, _SWEEP_LOCK):  # another worker is at it
        return 0
    now = epoch(session)
    _LEASES.give_up_lost(session, now)
    lost = _LEASES.put_back(session, now)
    _LEASES.wake(session, now)
    return len(lost)


def get(session: Connection, job_id: str) -> JobView:
    """One job. Raises NotFoundError."""
    row = session.execute(sa.select(*job.c).where(job.c.id == job_id)).first()
    if row is None:
        raise NotFoundError("there is no such job")
    return _view(row._mapping)


def list_(session: Connection, kinds: Sequence[str] = (), *, limit: int = 20) -> tuple[JobView, ...]:
    """Jobs, newest first."""
    query = sa.select(*job.c).order_by(job.c.created_epoch.desc(), job.c.id).limit(limit)
    if kinds:
        query = query.where(job.c.kind.in_(kinds))
    return tuple(_view(row._mapping) for row in session.execute(query))


def last(session: Connection, kind: str, key: str) -> JobView | None:
    """The newest job of this kind and key."""
    query = sa.select(*job.c).where(job.c.kind == kind, job.c.key == key).order_by(job.c.created_epoch.desc()).limit(1)
    row = session.execute(query).first()
    return _view(row._mapping) if row else None


def _view(row: RowMapping) -> JobView:
    raw, stage = row["progress"], row["stage"]
    progress = Progress(Stage(stage), raw["message"], raw["done"], raw["total"]) if raw and stage else None
    return JobView(
        row["id"],
        row["kind"],
        row["key"],
        row["parameters"],
        row["requested_by"],
        ScanState(row["state"]),
        progress,
        row["reason"],
        row["message"],
        row["attempt"],
        row["lost"],
        row["created_at"],
        row["started_at"],
        row["finished_at"],
    )
