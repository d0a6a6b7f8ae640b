"""Workers: claim a scan, run it under a lease, record it; and sweep. Celery tasks only wake them.

A worker process has several slots, each a thread that runs one scan at a time (the engine is a child process, and
hashing and decompression release the GIL). One slot runs ``gate`` scans only, because there a client waits.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from celery import Celery
from sqlalchemy.engine import Connection

from scanner import catalog, queue, telemetry
from scanner.config import NOTIFY, Settings, secret_key
from scanner.errors import Fault, LeaseLost, RemoteError, ScannerError
from scanner.model.actor import SERVICE
from scanner.model.scan import Lane, Progress, Stage
from scanner.registry.work_directories import sweep
from scanner.scanning.slots import claim_slot
from scanner.services import audit_anchors, decisions, inventory, trust_roots
from scanner.services import reconciliation as polls
from scanner.store import jobs, registry_checks, scans, trend
from scanner.store import reconciliation as stored_polls
from scanner.store.session import Database
from scanner.worker import maintenance, reconciliation, server_scan
from scanner.worker.notifier import Notifier

log = logging.getLogger(__name__)

_IDLE_SECONDS = 1.0  # between two looks at an empty queue; a message of the broker wakes a worker at once
_EXAMINE_SECONDS, _TIDY_SECONDS = 60.0, 60.0
_STOP_SECONDS = 5.0  # the supervisor kills after 12 s
_ANCHOR_SECONDS, _REFRESH_SECONDS = 60.0, 5.0
Runner = Callable[[scans.Claim, "server_scan.ServerServices", Callable[[Progress], None]], None]


@dataclass
class Worker:
    """One worker process.

    ``run`` blocks until ``stop``. Running scans are then handed back, so other workers take them.
    """

    settings: Settings
    database: Database
    celery: Celery
    runner: Runner = field(default_factory=lambda: server_scan.run_claim)
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}")

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self.due = threading.Event()  # set to check at once whether a job is due
        self._wake = threading.Condition()
        self._nudges = 0
        self._anchored = self._tidied = float("-inf")
        self._attempts: set[Attempt[Any]] = set()
        self._attempts_lock = threading.Lock()
        self._handing_back = False

    def stop(self) -> None:
        """Take no new scans, and hand back the running ones."""
        self._stop.set()
        self.due.set()
        self.nudge()

    def nudge(self) -> None:
        """Wake the slots: there may be a new scan."""
        with self._wake:
            self._nudges += 1
            self._wake.notify_all()

    def run(self) -> None:
        """Work until ``stop`` is called."""
        catalog.load()  # an invalid plug-in ends the worker now, not a scan later
        catalog.listings().load()
        threads = [threading.Thread(target=self._sweeper, name="sweeper", daemon=True)]
        for number in range(max(1, self.settings.workers) if self._scans else 0):
            lanes = self._lanes(number)
            threads.append(threading.Thread(target=self._slot, args=(lanes,), name=f"slot-{number}", daemon=True))
        if "background" in self.settings.lanes:
            threads.append(threading.Thread(target=self._keep_up, name="upkeep", daemon=True))
            # In threads of their own: a user waits for these, and a re-match of all images may take long.
            for name, what, once in (
                ("dry-runs", "dry runs", self.dry_run_once),
                ("registries", "polls of registries", self.reconcile_once),
            ):
                threads.append(threading.Thread(target=self._repeat, args=(what, once), name=name, daemon=True))
        if NOTIFY in self.settings.lanes:
            threads += Notifier(self.settings, self.database, self.name, self._stop.is_set).threads()
        for thread in threads:
            thread.start()
        self._stop.wait()
        self._hand_back()
        # The thread that runs an engine kills its process group after cancellation: wait for that. A thread that waits
        # for a registry is abandoned: it has no lease any more, so it cannot write.
        ends = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _hand_back(self) -> None:
        with self._attempts_lock:
            self._handing_back = True
            running = list(self._attempts)
        for attempt in running:
            attempt.hand_back()

    def _attempt(self, hold: Hold[Held], work: Callable[[Attempt[Held]], None]) -> None:
        """Run one attempt. If the worker is stopped, the attempt is handed back."""
        attempt = Attempt(self.settings, self.database, hold)
        with self._attempts_lock:
            self._attempts.add(attempt)
            late = self._handing_back
        try:
            if late:  # claimed just before the worker was stopped
                attempt.hand_back()
            else:
                work(attempt)
        finally:
            with self._attempts_lock:
                self._attempts.discard(attempt)

    @property
    def _scans(self) -> bool:
        """Whether this worker serves a lane of scans: one for notifications alone has no slots."""
        return any(lane in self.settings.lanes for lane in Lane)

    def _lanes(self, number: int) -> tuple[str, ...]:
        """Lanes of a slot.

        Slot 0 is reserved for the gate, if there are several slots and the worker serves the gate.
        """
        lanes = self.settings.lanes
        return ("gate",) if number == 0 and self.settings.workers > 1 and "gate" in lanes else lanes

    def _slot(self, lanes: Sequence[str]) -> None:
        with ExitStack() as stack:
            slot = stack.enter_context(claim_slot(self.settings.home / "slots"))
            services = server_scan.ServerServices.make(self.settings, self.database, slot, secret_key(self.settings))
            looked = 0.0
            while not self._stop.is_set():
                seen = self._nudges
                try:
                    found = self.work_once(lanes, services)
                    # When no scan waits, and at intervals among many: an examination is short, and a user may be
                    # waiting for it.
                    if not found or time.monotonic() - looked > _EXAMINE_SECONDS:
                        looked = time.monotonic()
                        found = self.check_once(lanes, services) or found
                except Exception:
                    # The boundary of a slot. A slot that ended here would be missing, unnoticed, until the process is
                    # restarted.
                    log.exception("unexpected error in a slot")
                    found = False
                if not found:
                    self._rest(seen)

    def _rest(self, seen: int) -> None:
        """Wait for the next wake-up, or a moment, because wake-ups can be lost."""
        with self._wake:
            self._wake.wait_for(lambda: self._nudges != seen or self._stop.is_set(), _IDLE_SECONDS)

    def work_once(self, lanes: Sequence[str], services: server_scan.ServerServices) -> bool:
        """Claim one scan and run it. Returns False if there was none, or the database is unavailable."""
        try:
            claim = self.database.uncrossed(
                lambda session: scans.claim(session, self.name, lanes, self.settings.lease_seconds)
            )
        except RemoteError as error:
            log.warning("cannot claim a scan or job: %s", error)
            return False
        if claim is None:
            return False

        def work(attempt: Attempt[scans.Claim]) -> None:
            own = services.cancelled_by(attempt.cancelled)
            attempt.run(lambda report: self._run_traced(claim, own, report))

        self._attempt(of_scan(claim), work)
        return True

    def _run_traced(
        self, claim: scans.Claim, own: server_scan.ServerServices, report: Callable[[Progress], None]
    ) -> None:
        """Run a scan in the trace of its request, with a span for each stage."""
        asked = claim.request
        traced = telemetry.span(
            "scan",
            parent=claim.trace,
            scan_id=claim.scan_id,
            lane=asked.lane.value,
            engine=asked.engine,
            source=asked.source,
            attempt=claim.attempt,
        )
        with traced, _StageSpans(report) as stages:
            self.runner(claim, own, stages)

    def _keep_up(self) -> None:
        """Run jobs in a thread of their own, so that background work does not delay scans."""
        with ExitStack() as stack:
            slot = stack.enter_context(claim_slot(self.settings.home / "slots"))
            self._erase_private_keys()
            while not self._stop.is_set():
                self.due.wait(self.settings.sweep_seconds)
                self.due.clear()
                try:
                    maintenance.check_invariants(self.database, self.name)
                    while not self._stop.is_set() and self.keep_up_once(
                        maintenance.Upkeep(self.settings, self.database, slot)
                    ):
                        pass
                except RemoteError as error:
                    log.warning("background jobs are delayed: %s", error)
                except Exception:
                    log.exception("unexpected error in background jobs")  # as in _slot

    def _erase_private_keys(self) -> None:
        """Once at the start, for what an earlier version stored. See ``trust_roots.erase_private_keys``."""
        try:
            with self.database.session() as session:
                names = trust_roots.erase_private_keys(session, SERVICE)
        except RemoteError as error:
            log.warning("cannot look for private keys in trust roots: %s", error)
            return
        for name in names:
            log.error("trust root %s held a private key: it was erased; make a new key and write the root again", name)

    def _repeat(self, what: str, once: Callable[[], bool]) -> None:
        """Call ``once`` until it finds nothing, rest, and begin again."""
        while not self._stop.is_set():
            found = False
            try:
                found = once()
            except RemoteError as error:
                log.warning("%s are delayed: %s", what, error)
            except Exception:
                log.exception("unexpected error in %s", what)  # the boundary of a thread, as in _slot
            if not found:
                self._stop.wait(_IDLE_SECONDS)

    def dry_run_once(self) -> bool:
        """Claim a dry run and run it. Returns False if there was none."""
        with self.database.read() as session:
            if not jobs.is_due(session, (jobs.DRY_RUN,)):
                return False
        return self._run_job({jobs.DRY_RUN: None}, maintenance.Upkeep(self.settings, self.database))

    def keep_up_once(self, own: maintenance.Upkeep) -> bool:
        """Request the jobs that are due, claim one and run it. Returns False if there was none."""
        can = maintenance.plan(own)
        return not self._stop.is_set() and self._run_job(can, own)

    def _run_job(self, can: Mapping[str, Collection[str] | None], own: maintenance.Upkeep) -> bool:
        """Claim a job of these kinds and run it. Returns False if there was none."""
        with self.database.session() as session:
            job = jobs.claim(session, self.name, can, self.settings.lease_seconds)
        if job is None:
            return False

        def work(attempt: Attempt[jobs.Job]) -> None:
            with telemetry.span(f"job {job.kind}"):
                attempt.run(lambda report: maintenance.run(job, replace(own, cancelled=attempt.cancelled), report))

        self._attempt(of_job(job), work)
        return True

    def reconcile_once(self) -> bool:
        """Request the polls that are due, and run one slice of a poll or an import. Returns False if there was none."""
        with self.database.read() as session:  # runs every second, so it must not block writers
            scheduled, due = bool(stored_polls.due(session)), jobs.is_due(session, (jobs.POLL, jobs.IMPORT))
        if not scheduled and not due:
            return False
        with self.database.session() as session:
            polls.schedule(session)
            job = jobs.claim(session, self.name, {jobs.POLL: None, jobs.IMPORT: None}, self.settings.lease_seconds)
            key = jobs.get(session, job.id).key if job else ""
        if job is None:
            return False

        def work(attempt: Attempt[jobs.Job]) -> None:
            attempt.run(lambda report: reconciliation.run(job, self.settings, self.database, key, report))

        self._attempt(of_job(job), work)
        return True

    def check_once(self, lanes: Sequence[str], services: server_scan.ServerServices) -> bool:
        """Examine one registry.

        Returns False if there was none, the database is unavailable, or this slot is reserved.
        """
        if "background" not in lanes:
            return False
        try:
            return server_scan.check_registry(services)
        except RemoteError as error:
            log.warning("cannot examine registries: %s", error)
        except LeaseLost:
            log.warning("another worker took over an examination of a registry")
        return False

    def _tidy(self) -> None:
        """Remove work directories of killed processes, which otherwise keep blobs on disk."""
        if time.monotonic() - self._tidied < _TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        try:
            removed = sweep(self.settings)
        except OSError as error:
            log.warning("cannot remove leftovers of killed workers in %s: %s", self.settings.work_dir, error)
        else:
            if removed:
                log.warning("removed %d work directories of killed workers", removed)

    def _sweeper(self) -> None:
        self._tidy()
        while not self._stop.wait(self.settings.sweep_seconds):
            self._tidy()
            try:
                swept = self.database.uncrossed(self._sweep)
                with self.database.session() as session:
                    registry_checks.schedule(session, self.settings.posture_max_age_hours)
            except RemoteError as error:
                log.warning("cannot sweep expired leases: %s", error)
                continue
            except Exception:
                # As in _slot. Without its sweeper, a worker would silently requeue nothing.
                log.exception("unexpected error in a sweep")
                continue
            if swept.requeued or swept.dead:
                log.warning("swept: %d scans requeued, %d given up", swept.requeued, swept.dead)
            for scan_id, lane in swept.kicks:
                queue.enqueue(self.celery, scan_id, lane)
            if swept.kicks:
                self.nudge()
            self._do_periodic_work()

    @staticmethod
    def _sweep(session: Connection) -> scans.Swept:
        swept = scans.sweep(session)
        jobs.sweep(session)
        trend.note(session)
        return swept

    def _do_periodic_work(self) -> None:
        """Periodic work: refresh decisions that expired with time, and record the audit log's chain outside the
        database.
        """
        try:
            if time.monotonic() - self._anchored > _ANCHOR_SECONDS:
                self._anchored = time.monotonic()
                audit_anchors.append_anchor(self.settings, self.database)
            decisions.refresh(self.database, catalog.known_names(), catalog.remedies(), seconds=_REFRESH_SECONDS)
            inventory.refresh(self.database, seconds=_REFRESH_SECONDS)
        except ScannerError as error:
            log.warning("periodic work is delayed: %s", error)
        except Exception:
            log.exception("unexpected error in periodic work")  # as in _sweeper


class _StageSpans:
    """Passes progress on, with a span from each stage to the next."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report = report
        self._stage: Stage | None = None
        self._span = telemetry.Span()

    def __enter__(self) -> _StageSpans:
        return self

    def __exit__(self, *error: object) -> None:
        self._span.end()

    def __call__(self, progress: Progress) -> None:
        if progress.stage is not self._stage:
            self._span.end()
            self._stage, self._span = progress.stage, telemetry.begin(f"stage {progress.stage.value}")
        self._report(progress)


Held = TypeVar("Held")


@dataclass(frozen=True)
class Hold(Generic[Held]):
    """A leased row, with its store's functions: the same for scans and jobs."""

    what: str  # for log lines, such as "scan 4f5e…"
    row: Held
    # extends the lease
    heartbeat: Callable[[Connection, Held, float, Progress | None], None]
    retry: Callable[[Connection, Held, str, str, float | None], object]
    fail: Callable[[Connection, Held, str, str], None]
    hand_back: Callable[[Connection, Held], None]  # returns the row without counting a try


def of_scan(claim: scans.Claim) -> Hold[scans.Claim]:
    return Hold(f"scan {claim.scan_id}", claim, scans.heartbeat, scans.retry, scans.fail, scans.hand_back)


def of_job(job: jobs.Job) -> Hold[jobs.Job]:
    return Hold(f"{job.kind} {job.id}", job, jobs.heartbeat, jobs.retry, jobs.fail, jobs.hand_back)


class Attempt(Generic[Held]):
    """One attempt at a leased row: sends heartbeats beside the work, and always records an end."""

    def __init__(self, settings: Settings, database: Database, hold: Hold[Held]) -> None:
        self._settings, self._database, self._hold = settings, database, hold
        self._lost, self._over = threading.Event(), threading.Event()
        self._handed_back = False
        self._progress = Progress(Stage.RESOLVE)

    def cancelled(self) -> bool:
        """True if another worker, or nobody, owns the row now: stop at once."""
        return self._lost.is_set()

    def hand_back(self) -> None:
        """Give the row up at once, so that another worker can start.

        The running work is cancelled and writes nothing.
        """
        self._handed_back = True
        try:
            with self._database.session() as session:
                self._hold.hand_back(session, self._hold.row)
            log.info("%s was handed back", self._hold.what)
        except LeaseLost:
            pass  # it ended in the meantime
        except ScannerError as error:
            log.warning("cannot hand back %s, so its lease has to expire: %s", self._hold.what, error)
        finally:
            self._lost.set()  # last: a cancelled engine must not look like a scan that failed

    def run(self, work: Callable[[Callable[[Progress], None]], None]) -> None:
        beat = threading.Thread(target=self._heartbeat, name=f"lease of {self._hold.what[:16]}", daemon=True)
        beat.start()
        try:
            work(self._report)
        except LeaseLost:
            log.warning("another worker took over %s", self._hold.what)
        except ScannerError as error:
            self._end(error)
        except Exception as error:
            if self._handed_back:  # the cancellation caused the error
                log.info("%s ended with %s after it was handed back", self._hold.what, type(error).__name__)
                return
            log.exception("unexpected error in %s", self._hold.what)
            # A bug fails the same way every time. A full disk or missing memory may be better a minute later.
            temporary = isinstance(error, OSError | MemoryError)
            self._end(ScannerError(f"internal error ({type(error).__name__})", retryable=temporary))
        finally:
            self._over.set()
            beat.join()

    def _report(self, progress: Progress) -> None:
        changed = progress.stage is not self._progress.stage
        self._progress = progress
        if self._lost.is_set():
            raise LeaseLost("the lease was lost")
        if changed:
            with self._database.session() as session:
                self._hold.heartbeat(session, self._hold.row, self._settings.lease_seconds, progress)

    def _heartbeat(self) -> None:
        """Renew the lease while the work continues.

        A short database outage is harmless, because the lease is longer.
        """
        while not self._over.wait(self._settings.heartbeat_seconds):
            try:
                with self._database.session() as session:
                    self._hold.heartbeat(session, self._hold.row, self._settings.lease_seconds, self._progress)
            except LeaseLost:
                self._lost.set()
                return
            except ScannerError as error:
                log.warning("cannot renew the lease of %s: %s", self._hold.what, error)

    def _end(self, error: ScannerError) -> None:
        """Record the failure of the attempt.

        If the database is unavailable, the lease expires and the sweeper records it.
        """
        if self._handed_back:
            return
        message = f"{error}" + (f" ({error.hint})" if error.hint else "")
        retry = error.retryable and error.fault is not Fault.CALLER
        for pause in (0.0, 1.0, 3.0):
            time.sleep(pause)
            try:
                with self._database.session() as session:
                    if retry:
                        self._hold.retry(session, self._hold.row, error.reason, message, error.retry_after)
                    else:
                        self._hold.fail(session, self._hold.row, error.reason, message)
            except LeaseLost:
                return
            except RemoteError:
                continue
            return


def register(app: Celery, worker: Worker) -> None:
    """Register the Celery tasks; both only wake the worker."""

    @app.task(name=queue.KICK, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def kick(scan_id: str) -> None:
        worker.nudge()

    @app.task(name=queue.KEEP_UP, ignore_result=True, shared=False)  # type: ignore[untyped-decorator]
    def keep_up() -> None:
        worker.due.set()
