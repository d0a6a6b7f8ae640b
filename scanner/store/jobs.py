"""Jobs: background work other than scans, with the same leases and fences. One of each kind runs at a time.

A recorded job always reaches a terminal state, even if workers die. Its committed work is kept, so the body of a job
must be able to continue where another worker stopped.
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
from scanner.store.leases import ACTIVE, ATTEMPTS, LONGEST_PAUSE, Leases, progress_json, try_lock
from scanner.store.schema import job
from scanner.store.session import epoch, moment

UPDATE, REMATCH, REQUEUE = "advisories-update", "rematch", "requeue"
CLAIR = "clair-notification"
BASES = "base-watch"
DRY_RUN = "policy-dry-run"  # a user waits for it: workers run it beside the others
RETENTION = "retention"  # triggers allow deleting decisions only while one runs (migration 0021)
RECEIPTS = "receipts"
INVARIANTS = "invariants"  # stores the result of the nightly `check_invariants`; never queued
POLL, IMPORT = "registry-poll", "registry-import"  # each with a registry's id as key
_PARALLEL = (POLL, IMPORT)  # kinds of which several run at once, one for each key
KINDS = (UPDATE, REMATCH, REQUEUE, CLAIR)
ANYWHERE = "any"  # the key of jobs that any worker can run
_LEASES = Leases(job)
# Advisory locks of PostgreSQL; see `scanner.store.audit`.
_CLAIM_LOCK, _SWEEP_LOCK = 0x0D0C4A0D1A, 0x0D0C4A0D1B


@dataclass(frozen=True)
class Job:
    """A claimed job. Every write of its worker must match ``fence``."""

    id: str
    fence: int
    kind: str
    parameters: Mapping[str, Any]  # JSON; a job keeps its position here between two transactions
    attempt: int = 0


@dataclass(frozen=True)
class JobView:
    """A job for lists. ``lost``: how many workers died while they ran it."""

    id: str
    kind: str
    key: str  # of one kind and key, at most one job is unfinished
    parameters: Mapping[str, Any]
    requested_by: str
    state: ScanState
    progress: Progress | None  # None: it is not running
    reason: str  # a slug; empty: it did not fail
    message: str
    attempt: int  # tries so far, without those that a worker lost
    lost: int
    created_at: datetime
    started_at: datetime | None  # None: it waits
    finished_at: datetime | None  # None: it has not ended


def request(
    session: Connection, kind: str, key: str, requested_by: str, parameters: Mapping[str, Any] | None = None
) -> str:
    """Queue a job, or find the unfinished one of the same kind and key. Returns its id."""
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
            continue  # another process inserted it between our SELECT and INSERT
        return identifier
    raise ConflictError("too many concurrent requests for the same job", hint="try again")


def hasten(session: Connection, job_id: str, parameters: Mapping[str, Any]) -> None:
    """Make a queued job due now, with other parameters. A running one is left alone."""
    waiting = sa.and_(job.c.id == job_id, job.c.state == ScanState.QUEUED)
    session.execute(job.update().where(waiting).values(next_at=epoch(session), parameters=dict(parameters)))


def is_due(session: Connection, kinds: Collection[str]) -> bool:
    """Return whether a queued job of these kinds is due. Read-only, so that idle workers can ask often."""
    queued = sa.and_(job.c.state == ScanState.QUEUED, job.c.kind.in_(list(kinds)), job.c.next_at <= epoch(session))
    return session.execute(sa.select(job.c.id).where(queued).limit(1)).first() is not None


def claim(
    session: Connection, worker: str, kinds: Mapping[str, Collection[str] | None], lease_seconds: float
) -> Job | None:
    """Claim the job that is due longest, of a kind of which none runs or several may, or return None.

    ``kinds``: the keys that this worker can run, by kind; None: any key.
    """
    if not try_lock(session, _CLAIM_LOCK):
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
        sa.or_(job.c.kind.in_(_PARALLEL), job.c.kind.not_in(running)),
    )
    # By due time: jobs that work in slices take turns.
    row = _LEASES.take(session, ready.order_by(job.c.next_at, job.c.created_epoch), worker, lease_seconds, stage="")
    return Job(row["id"], row["fence"], row["kind"], row["parameters"], row["attempt"]) if row else None


def check(session: Connection, held: Job, progress: Progress | None = None) -> None:
    """Verify the lease within a transaction that writes for the job. Raises LeaseLost if it was taken or cancelled."""
    values = {"stage": progress.stage, "progress": progress_json(progress)} if progress else {"worker": job.c.worker}
    _LEASES.write(session, held.id, held.fence, **values)


def keep(session: Connection, held: Job, parameters: Mapping[str, Any]) -> None:
    """Store a job's progress in the transaction of its work, so that another worker can continue. Raises LeaseLost."""
    _LEASES.write(session, held.id, held.fence, parameters=dict(parameters))


def rest(session: Connection, held: Job, parameters: Mapping[str, Any], seconds: float, progress: Progress) -> None:
    """End a slice of a job: store its progress, and queue the rest for ``seconds`` from now. Raises LeaseLost.

    Failures are counted from here on: a job that makes progress in between does not use up its attempts.
    """
    values: dict[str, Any] = {
        "stage": progress.stage,
        "progress": progress_json(progress),
        "parameters": dict(parameters),
    }
    values |= {"state": ScanState.QUEUED, "lease_until": None, "attempt": 0, "lost": 0, "reason": "", "message": ""}
    _LEASES.write(session, held.id, held.fence, next_at=epoch(session) + seconds, **values)


def heartbeat(session: Connection, held: Job, lease_seconds: float, progress: Progress | None = None) -> None:
    """Renew the lease and record the progress. Raises LeaseLost."""
    _LEASES.renew(session, held.id, held.fence, lease_seconds, progress)


def finish(session: Connection, held: Job, message: str = "") -> None:
    """End the job as done. ``message`` is its outcome."""
    _end(session, held, ScanState.DONE, "", message)


def fail(session: Connection, held: Job, reason: str, message: str) -> None:
    """End the job as failed. It is not retried."""
    _end(session, held, ScanState.FAILED, reason, message)


def retry(session: Connection, held: Job, reason: str, message: str, retry_after: float | None = None) -> None:
    """Record a temporary failure. The job is retried up to `ATTEMPTS` times, then dead."""
    attempt = held.attempt + 1
    if attempt >= ATTEMPTS:
        _end(session, held, ScanState.DEAD, reason, message, attempt=attempt)
        return
    _LEASES.wait(session, held.id, held.fence, attempt, reason, message, retry_after)


def hand_back(session: Connection, held: Job) -> None:
    """Return the job to the queue when the worker shuts down, without counting an attempt. Raises LeaseLost."""
    _LEASES.hand_back(session, held.id, held.fence)


def _end(session: Connection, held: Job, state: ScanState, reason: str, message: str, **more: Any) -> None:
    _LEASES.end(session, held.id, held.fence, state, reason, message, **more)


def cancel(session: Connection, job_id: str) -> bool:
    """Cancel an active job. Its worker loses the lease; committed work is kept. Returns False if it had ended."""
    return bool(_LEASES.cancel(session, job.c.id == job_id, "cancelled", "cancelled by a user"))


def supersede(session: Connection, kind: str, key: str) -> int:
    """Cancel the unfinished jobs of a kind with another key, which are obsolete. Returns their number."""
    others = sa.and_(job.c.kind == kind, job.c.key != key)
    return len(_LEASES.cancel(session, others, "superseded", "replaced by a newer job"))


def sweep(session: Connection) -> int:
    """Requeue jobs of dead workers, end those that repeatedly lost their worker, and queue due retries.

    Returns the number of requeued jobs.
    """
    if not try_lock(session, _SWEEP_LOCK):  # another worker is sweeping
        return 0
    now = epoch(session)
    _LEASES.mend_times(session, now, LONGEST_PAUSE)
    _LEASES.give_up_lost(session, now)
    lost = _LEASES.put_back(session, now)
    _LEASES.wake(session, now)
    return len(lost)


def get(session: Connection, job_id: str) -> JobView:
    """Return a job. Raises NotFoundError."""
    row = session.execute(sa.select(*job.c).where(job.c.id == job_id)).first()
    if row is None:
        raise NotFoundError("there is no such job")
    return _view(row._mapping)


def list_jobs(session: Connection, kinds: Sequence[str] = (), *, limit: int = 20) -> tuple[JobView, ...]:
    """Return jobs, the newest first."""
    query = sa.select(*job.c).order_by(job.c.created_epoch.desc(), job.c.id).limit(limit)
    if kinds:
        query = query.where(job.c.kind.in_(kinds))
    return tuple(_view(row._mapping) for row in session.execute(query))


def last(session: Connection, kind: str, key: str) -> JobView | None:
    """Return the newest job of a kind and key, or None."""
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
