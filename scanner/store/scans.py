"""Scans: the state machine. States change only by conditional updates in the database; messages only wake workers.

A claim takes a lease and increments the fence. Every later write must match the fence, so a worker that lost its lease
changes nothing. A sweep requeues expired leases and ends what cannot finish as ``dead``. It counts failures of the scan
(``attempt``) separately from dead workers (``lost``), because the latter may be a crash that the image causes. Only the
database's clock is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from scanner import telemetry
from scanner.errors import ConflictError, NotFoundError
from scanner.model.reference import Digest, Platform
from scanner.model.scan import Lane, Progress, ScanRequest, ScanState, Stage
from scanner.store.leases import ACTIVE, ATTEMPTS, GIVEN_UP, HANDED_BACK, LOSSES, Leases, try_lock
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import (
    IS_QUEUED,
    decision,
    delivery_scan,
    harbor_scan,
    idempotency,
    image,
    report,
    scan,
    scan_attempt,
    verdict,
)
from scanner.store.session import epoch, moment, new_id

DEADLINE_SECONDS = 24 * 3600.0  # a scan that has not ended by then is given up, whatever it waits for
NOT_AN_IMAGE = "not_an_image"  # the reason of a scan that is done without a report
_LEASES = Leases(scan)
_KICK_AGAIN = 15.0  # seconds until a message for a queued scan is repeated, in case it was lost
# An equal request may be queued and claimed between the look and the insert.
_INSERT_TRIES = 5
_WAIT_FOR_TWIN = 30.0  # seconds at most; the end of the other scan wakes it
_TWIN = "waits_for_twin"
# Advisory locks of PostgreSQL; see `scanner.store.audit`.
_QUARANTINE_LOCK, _SWEEP_LOCK = 0x0D0C4A0D18, 0x0D0C4A0D19
_TERMINAL = tuple(state.value for state in ScanState if state.terminal)
_LANE_ORDER = {Lane.GATE: 0, Lane.PUSH: 1, Lane.BACKGROUND: 2, Lane.QUARANTINE: 3}


@dataclass(frozen=True)
class Ticket:
    """The result of a request. ``created``: the scan is new, and the caller enqueues it after the commit."""

    scan_id: str
    created: bool


@dataclass(frozen=True)
class Claim:
    """A claimed scan. Every write of its worker must match ``fence``. ``trace``: the context of the request's trace."""

    scan_id: str
    fence: int
    request: ScanRequest
    attempt: int  # of the tries; lost workers are counted apart
    lost: int  # workers that died with it, which is not the image's fault
    trace: str = ""


@dataclass(frozen=True)
class AttemptView:
    worker: str  # name of the process
    started_at: datetime
    ended_at: datetime | None  # None: it runs, or its worker died
    reason: str
    message: str


@dataclass(frozen=True)
class ScanView:
    """A scan for lists. A merged scan shows the state of the other scan under its own id."""

    id: str
    request: ScanRequest
    state: ScanState
    digest: Digest | None  # None: the reference is not resolved yet
    progress: Progress | None
    reason: str  # a slug; empty: it did not fail
    message: str
    attempt: int
    lost: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    supersedes: str | None  # the scan that this one repeats
    report_id: str | None  # None: no evidence


@dataclass(frozen=True)
class Figures:
    """Figures for metrics. ``by_state``: number of scans by (lane, state)."""

    by_state: Mapping[tuple[str, str], int]
    oldest_queued_seconds: float


@dataclass(frozen=True)
class Swept:
    """The result of a sweep: numbers of requeued and ended scans. ``kicks``: scans whose message must be sent again."""

    requeued: int
    dead: int
    kicks: tuple[tuple[str, Lane], ...]


def request(
    session: Connection,
    asked: ScanRequest,
    *,
    idempotency_key: str | None = None,
    delivery_id: str | None = None,
    supersedes: str | None = None,
    alone: bool = False,
) -> Ticket:
    """Record a request, or join an equal one that is still queued and thus has not resolved the tag yet.

    A committed request always reaches a terminal state, even if workers or the queue fail. ``alone``: join none, and
    let none join, because the request brings credentials of its own.
    """
    if alone:
        return _insert(session, asked, None, supersedes)
    if idempotency_key is None:
        return _request(session, asked, delivery_id, supersedes)
    known = _scan_of_key(session, idempotency_key)
    if known is None:
        try:
            with session.begin_nested():
                ticket = _request(session, asked, delivery_id, supersedes)
                values = {"key": idempotency_key, "scan_id": ticket.scan_id, "created_at": moment(session)}
                session.execute(idempotency.insert().values(**values))
                return ticket
        except IntegrityError:
            # A concurrent request with the same key won. The savepoint has undone ours, including its scan.
            known = _scan_of_key(session, idempotency_key)
            if known is None:
                raise
    _link(session, delivery_id, known)
    return Ticket(known, created=False)


def request_all(
    session: Connection, asked: Iterable[tuple[str, ScanRequest]], *, delivery_id: str | None = None
) -> list[Ticket]:
    """Record several requests with their idempotency keys. Returns tickets in the order of the requests.

    Rows are written sorted by key. Otherwise two deliveries with the same images in different order could deadlock.
    """
    wanted = list(asked)
    order = sorted(range(len(wanted)), key=lambda n: (request_key(wanted[n][1]), wanted[n][0]))
    tickets = {n: request(session, wanted[n][1], idempotency_key=wanted[n][0], delivery_id=delivery_id) for n in order}
    return [tickets[n] for n in range(len(wanted))]


def _scan_of_key(session: Connection, idempotency_key: str) -> str | None:
    found = session.execute(sa.select(idempotency.c.scan_id).where(idempotency.c.key == idempotency_key)).scalar()
    return str(found) if found else None


def _request(session: Connection, asked: ScanRequest, delivery_id: str | None, supersedes: str | None) -> Ticket:
    key = request_key(asked)
    # Only a queued one. A running scan has resolved the tag already, and a push that came since may have moved it.
    joined = None if asked.force else _queued_scan(session, key)
    ticket = Ticket(joined, created=False) if joined else _insert(session, asked, key, supersedes)
    # A push or a waiting client must not wait in the lane of the background scan that it joins.
    slower = [lane for lane, rank in _LANE_ORDER.items() if rank > _LANE_ORDER[asked.lane] and lane != Lane.QUARANTINE]
    if joined and slower:
        queued = sa.and_(scan.c.id == joined, scan.c.state == ScanState.QUEUED, scan.c.lane.in_(slower))
        session.execute(scan.update().where(queued).values(lane=asked.lane))
    _link(session, delivery_id, ticket.scan_id)
    return ticket


def _link(session: Connection, delivery_id: str | None, scan_id: str) -> None:
    """Link a delivery to a scan, unless a repeated delivery has done so."""
    if delivery_id is None:
        return
    pair = sa.and_(delivery_scan.c.delivery_id == delivery_id, delivery_scan.c.scan_id == scan_id)
    if session.execute(sa.select(delivery_scan.c.scan_id).where(pair)).scalar() is None:
        session.execute(delivery_scan.insert().values(delivery_id=delivery_id, scan_id=scan_id))


def _queued_scan(session: Connection, key: str) -> str | None:
    found = session.execute(sa.select(scan.c.id).where(scan.c.request_key == key, sa.text(IS_QUEUED))).scalar()
    return str(found) if found else None


def _insert(session: Connection, asked: ScanRequest, key: str | None, supersedes: str | None) -> Ticket:
    now = epoch(session)
    values: dict[str, Any] = {
        "id": new_id(),
        "target": asked.target,
        "platform": str(asked.platform) if asked.platform else None,
        "engine": asked.engine,
        "lane": asked.lane,
        "force": asked.force,
        "project": asked.project,
        "requested_by": asked.requested_by[:200],
        "source": asked.source,
        "state": ScanState.QUEUED,
        "request_key": None if asked.force else key,
        "next_at": now,
        "created_epoch": now,
        "kicked_epoch": now,
        "created_at": moment(session),
        "supersedes": supersedes,
        "trace": telemetry.current(),
    }
    for _ in range(_INSERT_TRIES):
        try:
            with session.begin_nested():
                session.execute(scan.insert().values(**values))
        except IntegrityError:
            # A concurrent request was inserted after our SELECT. Join it if it is still queued.
            joined = _queued_scan(session, key) if key is not None else None
            if joined is not None:
                return Ticket(joined, created=False)
        else:
            return Ticket(values["id"], created=True)
    raise ConflictError("too many concurrent requests for the same scan", hint="try again")


def request_key(asked: ScanRequest) -> str:
    """Return the key that equal requests share. While one of them is queued, the others join it."""
    return _hash(asked.target, str(asked.platform or ""), asked.engine, asked.project)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def claim(
    session: Connection, worker: str, lanes: Iterable[str], lease_seconds: float, *, scan_id: str | None = None
) -> Claim | None:
    """Claim the most urgent due scan of these lanes, or ``scan_id`` if it is due. None: nothing to do.

    Scans that have killed workers are in lane ``quarantine``. Workers of lane ``background`` run them one at a time.
    """
    now = epoch(session)
    wanted = [*lanes]
    if "background" in wanted and _quarantine_free(session):
        wanted.append(Lane.QUARANTINE)
    ready = sa.select(scan.c.id).where(scan.c.state == ScanState.QUEUED, scan.c.next_at <= now, scan.c.lane.in_(wanted))
    if scan_id:
        ready = ready.where(scan.c.id == scan_id)
    order = sa.case(_LANE_ORDER, value=scan.c.lane, else_=9)
    ready = ready.order_by(order, scan.c.created_epoch)
    row = _LEASES.take(session, ready, worker, lease_seconds, stage=Stage.RESOLVE)
    if row is None:
        return None
    session.execute(
        scan_attempt.insert().values(scan_id=row["id"], fence=row["fence"], worker=worker, started_at=moment(session))
    )
    return Claim(row["id"], row["fence"], _request_of(row), row["attempt"], row["lost"], row["trace"])


def _quarantine_free(session: Connection) -> bool:
    """Return whether no quarantined scan runs. Holds a lock until the end of the claim, against concurrent claims."""
    if not try_lock(session, _QUARANTINE_LOCK):
        return False
    running = sa.select(sa.func.count()).where(scan.c.state == ScanState.RUNNING, scan.c.lane == Lane.QUARANTINE)
    return not session.execute(running).scalar_one()


def _write(session: Connection, held: Claim, **values: Any) -> None:
    """Update a claimed scan. Raises LeaseLost if the fence does not match."""
    _LEASES.write(session, held.scan_id, held.fence, **values)


def heartbeat(session: Connection, held: Claim, lease_seconds: float, progress: Progress | None = None) -> None:
    """Renew the lease and record the progress. Raises LeaseLost: stop at once and write nothing."""
    _LEASES.renew(session, held.scan_id, held.fence, lease_seconds, progress)


def settle(session: Connection, held: Claim, digest: Digest, advisories: str, options: str = "") -> bool:
    """Record the digest that the reference resolved to.

    Returns False if another worker is scanning the same digest; this attempt is then over. A scan of the same name is
    merged into the other one. A scan of another name waits for the other's evidence and decides by itself, because
    policies also select repositories, and each name has its own verdict.
    """
    asked = held.request
    key = (
        None
        if asked.force
        else _hash(digest, str(asked.platform or ""), asked.engine, advisories, options, asked.project)
    )
    twin = _twin(session, held, key)
    if twin is None:
        try:
            with session.begin_nested():
                _write(session, held, digest=digest, key=key)
            return True
        except IntegrityError:  # another worker recorded the same key after our SELECT
            twin = _twin(session, held, key)
    if twin is not None and twin.target == asked.target:
        message = "merged into the running scan of the same image"
        _end(session, held, ScanState.CANCELLED, "duplicate", message, digest=digest, merged_into=twin.id)
    else:
        _yield(session, held, digest, _WAIT_FOR_TWIN if twin is not None else 0.0)
    return False


def _twin(session: Connection, held: Claim, key: str | None) -> sa.Row[str, str] | None:
    if key is None:
        return None
    running = sa.and_(scan.c.key == key, scan.c.state == ScanState.RUNNING, scan.c.id != held.scan_id)
    return session.execute(sa.select(scan.c.id, scan.c.target).where(running)).first()


def _yield(session: Connection, held: Claim, digest: Digest, seconds: float) -> None:
    """Return the scan to the queue without counting an attempt, until the other scan ends."""
    message = "the same image is being scanned under another name"
    _write(
        session,
        held,
        state=ScanState.QUEUED,
        digest=digest,
        key=None,
        request_key=None,
        lease_until=None,
        progress=None,
        next_at=epoch(session) + seconds,
        reason=_TWIN,
        message=message,
    )
    _close_attempt(session, held.scan_id, held.fence, _TWIN, message)


def _after_end(session: Connection, ended: str) -> None:
    """Do what is due in each transaction that ends a scan."""
    # Credentials that were sent for one scan are not kept longer than it runs.
    sent = sa.and_(harbor_scan.c.id == ended, harbor_scan.c.credentials.is_not(None))
    session.execute(harbor_scan.update().where(sent).values(credentials=None))
    _wake_twins(session, ended)


def _wake_twins(session: Connection, ended: str) -> None:
    """Make scans of the same digest due that wait for the ended one."""
    digest = sa.select(scan.c.digest).where(scan.c.id == ended).scalar_subquery()
    # Locked rows are skipped instead of waited for: those scans become due within `_WAIT_FOR_TWIN` anyway.
    waiting = sa.select(scan.c.id).where(
        scan.c.digest == digest, scan.c.state == ScanState.QUEUED, scan.c.reason == _TWIN
    )
    woken = waiting.with_for_update(skip_locked=True) if session.dialect.name != "sqlite" else waiting
    session.execute(scan.update().where(scan.c.id.in_(woken)).values(next_at=epoch(session), kicked_epoch=None))


def finish(session: Connection, held: Claim, report_id: str, digest: Digest, message: str = "") -> None:
    """End the scan as done, in the transaction that wrote the result.

    Raises LeaseLost; the caller must roll the transaction back. ``message``: a note about the result for users.
    """
    _end(session, held, ScanState.DONE, "", message, report_id=report_id, digest=digest, stage=Stage.RECORD)


def finish_without_image(session: Connection, held: Claim, digest: Digest, message: str) -> None:
    """End the scan as done without evidence: the reference is not an image (a chart, a signature). Raises LeaseLost."""
    _end(session, held, ScanState.DONE, NOT_AN_IMAGE, message, digest=digest)


def fail(session: Connection, held: Claim, reason: str, message: str) -> None:
    """End the scan as failed. It is not retried."""
    _end(session, held, ScanState.FAILED, reason, message)


def retry(session: Connection, held: Claim, reason: str, message: str, retry_after: float | None = None) -> ScanState:
    """Record a temporary failure. The scan is retried up to `ATTEMPTS` times, then dead. Returns its state."""
    attempt = held.attempt + 1
    if attempt >= ATTEMPTS:
        _end(session, held, ScanState.DEAD, reason, message, attempt=attempt)
        return ScanState.DEAD
    identity = (held.scan_id, held.fence)
    _LEASES.wait(session, *identity, attempt, reason, message, retry_after, key=None, progress=None)
    _close_attempt(session, held.scan_id, held.fence, reason, message)
    return ScanState.RETRY_WAIT


def hand_back(session: Connection, held: Claim) -> None:
    """Return the scan to the queue when the worker shuts down, without counting an attempt. Raises LeaseLost."""
    _LEASES.hand_back(session, held.scan_id, held.fence, key=None, request_key=None, progress=None, kicked_epoch=None)
    _close_attempt(session, held.scan_id, held.fence, **HANDED_BACK)


def _end(session: Connection, held: Claim, state: ScanState, reason: str, message: str, **more: Any) -> None:
    _LEASES.end(session, held.scan_id, held.fence, state, reason, message, **more)
    _close_attempt(session, held.scan_id, held.fence, reason, message)
    _after_end(session, held.scan_id)


def _close_attempt(session: Connection, scan_id: str, fence: int, reason: str, message: str) -> None:
    where = sa.and_(scan_attempt.c.scan_id == scan_id, scan_attempt.c.fence == fence)
    session.execute(
        scan_attempt.update()
        .where(where, scan_attempt.c.ended_at.is_(None))
        .values(ended_at=moment(session), reason=reason, message=message[:1000])
    )


def cancel(session: Connection, scan_id: str) -> bool:
    """Cancel an active scan. Its worker loses the lease. Returns False if it had ended."""
    message = "cancelled by a user"
    ended = _LEASES.cancel(session, scan.c.id == scan_id, "cancelled", message)
    for row in ended:
        _close_attempt(session, scan_id, row.fence - 1, "cancelled", message)
        _after_end(session, scan_id)
    return bool(ended)


def rescan(session: Connection, scan_id: str, requested_by: str) -> Ticket:
    """Request a new scan of the same image. The former scan is kept. Raises NotFoundError."""
    row = session.execute(sa.select(*scan.c).where(scan.c.id == scan_id)).first()
    if row is None:
        raise NotFoundError("there is no such scan")
    former = _request_of(row._mapping)
    asked = ScanRequest(
        former.target, former.platform, former.engine, Lane.PUSH, True, former.project, requested_by, "rescan"
    )
    return request(session, asked, supersedes=scan_id)


def sweep(session: Connection) -> Swept:
    """Requeue scans of dead workers, queue due retries, end hopeless scans, and list scans whose message is overdue.

    Every worker sweeps. Does nothing while another one does.
    """
    if not try_lock(session, _SWEEP_LOCK):
        return Swept(0, 0, ())
    now = epoch(session)
    _LEASES.mend_times(session, now, _WAIT_FOR_TWIN * 2)
    dead = _given_up(session, _LEASES.give_up_lost(session, now), "worker_lost", GIVEN_UP)
    # A terminal state is promised to everybody who waits: a pipeline, a webhook, a page.
    late = scan.c.created_epoch < now - DEADLINE_SECONDS
    message = "given up: not finished within 24 hours"
    too_late = _LEASES.give_up(session, now, late, "deadline_exceeded", message)
    dead += _given_up(session, too_late, "deadline_exceeded", message)
    # Two workers died with it, perhaps because of the image. Alone in quarantine it can take no other scan down with
    # it.
    lane = sa.case((scan.c.lost + 1 >= 2, Lane.QUARANTINE), else_=scan.c.lane)
    lost = _LEASES.put_back(session, now, key=None, request_key=None, progress=None, lane=lane)
    for row in lost:
        _close_attempt(session, row.id, row.fence - 1, "worker_lost", "the worker's lease expired")
    woken = _LEASES.wake(session, now, request_key=None)
    kicks = session.execute(
        scan.update()
        .where(
            scan.c.state == ScanState.QUEUED,
            scan.c.next_at <= now,
            sa.or_(
                scan.c.kicked_epoch.is_(None),
                scan.c.kicked_epoch < now - _KICK_AGAIN,
                scan.c.kicked_epoch > now + _KICK_AGAIN,  # the clock was set back
                scan.c.id.in_([*(row.id for row in lost), *woken]),
            ),
        )
        .values(kicked_epoch=now)
        .returning(scan.c.id, scan.c.lane)
    ).all()
    return Swept(len(lost), dead, tuple((row.id, Lane(row.lane)) for row in kicks))


def _given_up(session: Connection, rows: Sequence[sa.Row[str, int]], reason: str, message: str) -> int:
    for row in rows:
        _close_attempt(session, row.id, row.fence - 1, reason, message)
        _after_end(session, row.id)
    return len(rows)


def current(
    session: Connection,
    digest: Digest,
    engine: str,
    project: str,
    *,
    repository: str | None = None,
    platform: Platform | None = None,
) -> ScanView | None:
    """Return the newest finished scan of this digest with complete evidence and current advisories. None: scan it.

    Evidence of a part of an index is never complete. ``platform``: only scans that requested this platform.
    ``repository``: only evidence of this name, because policies select names. The current advisories are those of the
    engine's newest report.
    """
    newest = (
        sa.select(report.c.advisories)
        .where(report.c.engine == engine)
        .order_by(report.c.created_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        sa.select(*scan.c)
        .join(report, report.c.id == scan.c.report_id)
        .where(
            report.c.digest == scan.c.digest,
            scan.c.engine == engine,
            scan.c.project == project,
            scan.c.state == ScanState.DONE,
            report.c.complete,
            report.c.advisories == newest,
        )
    )
    if platform is None:
        # Old versions stored the index's digest for evidence about one platform. An index has no row in ``image``.
        whole = sa.or_(scan.c.platform.is_(None), sa.exists().where(image.c.digest == scan.c.digest))
        query = query.where(scan.c.digest == digest, whole)
    # The scan's own digest is that of the platform's image, while it was requested with the digest of the index.
    else:
        query = query.where(scan.c.target.endswith(f"@{digest}", autoescape=True), scan.c.platform == str(platform))
    if repository is not None:
        query = query.where(report.c.repository == repository)
    row = session.execute(query.order_by(scan.c.created_epoch.desc()).limit(1)).first()
    return _view(row._mapping, row._mapping) if row else None


def examined_at(session: Connection, report_id: str) -> datetime | None:
    """Return when a scan last gathered this evidence, or None. Identical evidence is stored only once."""
    query = sa.select(sa.func.max(scan.c.finished_at)).where(scan.c.report_id == report_id)
    return session.execute(query.where(scan.c.state == ScanState.DONE)).scalar()


def get(session: Connection, scan_id: str, projects: frozenset[str] | None = None) -> ScanView:
    """Return a scan. Raises NotFoundError, also for another project's scan."""
    row = session.execute(sa.select(*scan.c).where(scan.c.id == scan_id)).first()
    if row is None or (projects is not None and row.project not in projects):
        raise NotFoundError("there is no such scan")
    own = row._mapping
    shown = own
    # A merged scan can point to one that was merged itself. The bound keeps a damaged chain from looping.
    for _ in range(10):
        if not shown["merged_into"]:
            break
        other = session.execute(sa.select(*scan.c).where(scan.c.id == shown["merged_into"])).first()
        if other is None:
            break
        shown = other._mapping
    return _view(own, shown)


def list_scans(
    session: Connection,
    projects: frozenset[str] | None,
    *,
    states: Sequence[ScanState] = (),
    project: str | None = None,
    digest: str | None = None,
    only_unrepeated: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ScanView]:
    """Return scans, the newest first."""
    query = sa.select(*scan.c).order_by(scan.c.created_epoch.desc(), scan.c.id.desc()).limit(limit + 1)
    if projects is not None:
        query = query.where(scan.c.project.in_(projects))
    if states:
        query = query.where(scan.c.state.in_([str(state) for state in states]))
    if project:
        query = query.where(scan.c.project == project)
    if digest:
        query = query.where(scan.c.digest == digest)
    if only_unrepeated:
        query = query.where(*unrepeated_failures(session))
    if cursor:
        at, identifier = decode_cursor(cursor, (float, str))
        query = query.where(
            sa.tuple_(scan.c.created_epoch, scan.c.id) < sa.tuple_(sa.literal(at), sa.literal(identifier))
        )
    rows = [row._mapping for row in session.execute(query)]
    more = encode_cursor(rows[limit - 1]["created_epoch"], rows[limit - 1]["id"]) if len(rows) > limit else None
    return Page(tuple(_view(row, row) for row in rows[:limit]), more)


def unrepeated_failures(session: Connection) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions for failed scans of the last 7 days that were not repeated."""
    again = sa.select(scan.c.supersedes).where(scan.c.supersedes.is_not(None))
    recent = scan.c.created_at >= moment(session) - timedelta(days=7)
    return (scan.c.state.in_(("dead", "failed")), recent, scan.c.id.not_in(again))


def counts(session: Connection, projects: frozenset[str] | None) -> dict[str, int]:
    """Return the number of scans by state."""
    query = sa.select(scan.c.state, sa.func.count()).group_by(scan.c.state)
    if projects is not None:
        query = query.where(scan.c.project.in_(projects))
    return {row[0]: row[1] for row in session.execute(query)}


def attempts(session: Connection, scan_id: str) -> tuple[AttemptView, ...]:
    """Return all attempts of a scan, the oldest first."""
    rows = session.execute(
        sa.select(*scan_attempt.c).where(scan_attempt.c.scan_id == scan_id).order_by(scan_attempt.c.fence)
    )
    return tuple(AttemptView(r.worker, r.started_at, r.ended_at, r.reason, r.message) for r in rows)


def figures(session: Connection) -> Figures:
    """Return numbers of scans by lane and state, and the age of the longest queued one in seconds."""
    counts = session.execute(
        sa.select(scan.c.lane, scan.c.state, sa.func.count()).group_by(scan.c.lane, scan.c.state)
    ).all()
    oldest = session.execute(
        sa.select(sa.func.min(scan.c.created_epoch)).where(scan.c.state == ScanState.QUEUED)
    ).scalar()
    return Figures(
        {(lane, state): count for lane, state, count in counts}, max(0.0, epoch(session) - oldest) if oldest else 0.0
    )


def _request_of(row: RowMapping) -> ScanRequest:
    platform = Platform.parse(row["platform"]) if row["platform"] else None
    return ScanRequest(
        row["target"],
        platform,
        row["engine"],
        Lane(row["lane"]),
        bool(row["force"]),
        row["project"],
        row["requested_by"],
        row["source"],
    )


def _view(own: RowMapping, shown: RowMapping) -> ScanView:
    raw = shown["progress"]
    stage = Stage(shown["stage"]) if shown["stage"] else None
    progress = (
        Progress(stage, raw["message"] if raw else "", raw["done"] if raw else 0, raw["total"] if raw else 0)
        if stage and shown["state"] == ScanState.RUNNING
        else None
    )
    return ScanView(
        id=own["id"],
        request=_request_of(own),
        state=ScanState(shown["state"]),
        digest=Digest(shown["digest"]) if shown["digest"] else None,
        progress=progress,
        reason=shown["reason"],
        message=shown["message"],
        attempt=shown["attempt"],
        lost=shown["lost"],
        created_at=own["created_at"],
        started_at=shown["started_at"],
        finished_at=shown["finished_at"],
        supersedes=own["supersedes"],
        report_id=shown["report_id"],
    )


def invariants(session: Connection) -> list[str]:
    """Return violated invariants of the tables, one text each. Run after every fault test and every night."""
    other = scan.alias()
    checks = {
        "I1 not finished within 24 hours": sa.select(scan.c.id).where(
            scan.c.state.in_(ACTIVE), scan.c.created_epoch < epoch(session) - DEADLINE_SECONDS - 300
        ),
        "I2 two running scans of one key": sa.select(scan.c.key)
        .where(scan.c.state == ScanState.RUNNING, scan.c.key.is_not(None))
        .group_by(scan.c.key)
        .having(sa.func.count() > 1),
        "I3 done without a report": sa.select(scan.c.id).where(
            scan.c.state == ScanState.DONE, scan.c.report_id.is_(None), scan.c.reason != NOT_AN_IMAGE
        ),
        "I3 a report of a scan that is not done": sa.select(scan.c.id).where(
            scan.c.state != ScanState.DONE, scan.c.report_id.is_not(None)
        ),
        "I3 done without a decision": sa.select(scan.c.id).where(
            scan.c.state == ScanState.DONE,
            scan.c.reason != NOT_AN_IMAGE,
            ~sa.exists().where(decision.c.scan_id == scan.c.id),
        ),
        "I3 two decisions of one scan for one environment": sa.select(decision.c.scan_id)
        .where(decision.c.scan_id.is_not(None))
        .group_by(decision.c.scan_id, decision.c.environment)
        .having(sa.func.count() > 1),
        "I4 a decision of a scan that is not done": sa.select(decision.c.id)
        .join(scan, scan.c.id == decision.c.scan_id)
        .where(scan.c.state != ScanState.DONE),
        "I4 an attempt beyond the fence": sa.select(scan_attempt.c.scan_id)
        .join(scan, scan.c.id == scan_attempt.c.scan_id)
        .where(scan_attempt.c.fence > scan.c.fence),
        "I4 an open attempt of a scan that is not running": sa.select(scan_attempt.c.scan_id)
        .join(scan, scan.c.id == scan_attempt.c.scan_id)
        .where(
            scan_attempt.c.ended_at.is_(None),
            sa.or_(scan.c.state != ScanState.RUNNING, scan_attempt.c.fence != scan.c.fence),
        ),
        "running without an attempt": sa.select(scan.c.id).where(
            scan.c.state == ScanState.RUNNING,
            ~sa.exists().where(scan_attempt.c.scan_id == scan.c.id, scan_attempt.c.fence == scan.c.fence),
        ),
        "more than one quarantined scan at once": sa.select(sa.func.count())
        .where(scan.c.state == ScanState.RUNNING, scan.c.lane == Lane.QUARANTINE)
        .having(sa.func.count() > 1),
        "I5 too many attempts": sa.select(scan.c.id).where(sa.or_(scan.c.attempt > ATTEMPTS, scan.c.lost > LOSSES)),
        "I7 failed without a reason": sa.select(scan.c.id).where(
            scan.c.state.in_(["failed", "dead"]), sa.or_(scan.c.reason == "", scan.c.message == "")
        ),
        "I10 a verdict with evidence of another digest": sa.select(verdict.c.digest)
        .outerjoin(decision, decision.c.id == verdict.c.decision_id)
        .outerjoin(report, report.c.id == verdict.c.report_id)
        .where(
            sa.or_(
                decision.c.digest.is_(None),
                report.c.digest.is_(None),
                decision.c.digest != verdict.c.digest,
                report.c.digest != verdict.c.digest,
            )
        ),
        "merged into a missing scan": sa.select(scan.c.id).where(
            scan.c.merged_into.is_not(None), ~sa.exists().where(other.c.id == scan.c.merged_into)
        ),
        "terminal with a lease": sa.select(scan.c.id).where(
            scan.c.state.in_(_TERMINAL), scan.c.lease_until.is_not(None)
        ),
        "running without a lease": sa.select(scan.c.id).where(
            scan.c.state == ScanState.RUNNING, scan.c.lease_until.is_(None)
        ),
    }
    return [f"{name}: {row[0]}" for name, query in checks.items() for row in session.execute(query)]
