"""Retention: removes expired data in small transactions with pauses, so that other writers are not blocked.

A pruning is a job with a lease. Each batch adds its counts to the job's row in the same transaction. If a worker is
killed, another one continues, and the audit entry contains the totals of both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.engine import Connection

from scanner.config import PREFIX, Retention, Settings
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.scan import Progress, ScanState, Stage
from scanner.store import audit, jobs
from scanner.store import retention as store
from scanner.store.session import Database, moment

EVERY = timedelta(hours=24)
_FIRST, _SMALLEST, _LARGEST = 50, 5, 1000  # rows per transaction: at first, at least, at most
_LONG, _SHORT = 0.2, 0.05  # seconds; slower transactions halve the batch size, faster ones double it
_PAUSE = 0.05  # seconds, minimum after each transaction
_LOOK = 5000  # keys per query
# Seconds before another try while a scan is recorded.
_BUSY_PAUSE = 0.1
_AUDIT_LOG = "audit_log"
# Labels of tables that `store.KINDS` does not list.
_LABELS = {
    "delivery_scan": "Links from deliveries to scans",
    "listing_package": "Links from images to packages",
    "rests_on": "Basis of evidence",
    "finding": "Findings of those images",
    "dry_run_change": "Results of dry runs",
    "image_component": "Packages of those images",
    "scan_attempt": "Attempts of scans",
    "scan_told": "Failures that the gate has reported",
    _AUDIT_LOG: "Audit log",
}


@dataclass(frozen=True)
class RetentionSetting:
    """A retention setting."""

    name: str
    kept: Retention

    @property
    def variable(self) -> str:
        return f"{PREFIX}RETENTION_{self.name.upper()}"

    @property
    def label(self) -> str:
        return self.name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class PlannedRemoval:
    """The rows of one table that a pruning would remove. ``bytes`` is an estimate from the table's average row size."""

    table: str
    label: str  # for people
    rows: int
    bytes: int


@dataclass(frozen=True)
class Run:
    """One pruning of the database. ``removed``: number of rows so far, by table."""

    id: str
    state: ScanState
    requested_by: str
    started_at: datetime
    finished_at: datetime | None
    removed: Mapping[str, int]
    message: str

    @property
    def rows(self) -> int:
        return sum(self.removed.values())


@dataclass(frozen=True)
class Storage:
    """Disk usage in bytes.

    ``measured_at``: when the tables were measured; None: just now. ``directories`` are those of this machine, by label.
    """

    total: int
    tables: tuple[store.Size, ...]
    measured_at: datetime | None
    directories: Mapping[str, int]
    last: Run | None  # the newest pruning; None: there was none


def retention_settings(settings: Settings) -> tuple[RetentionSetting, ...]:
    """Return all retention settings."""
    names = [item.name for item in fields(Settings) if item.name.startswith("retention_")]
    return tuple(RetentionSetting(name.removeprefix("retention_"), getattr(settings, name)) for name in names)


def cutoffs(settings: Settings, now: datetime) -> store.Cutoffs:
    """Return the moments before which data is removed at ``now``."""
    known = {item.name for item in fields(store.Cutoffs)}
    periods = {item.name: item.kept.period for item in retention_settings(settings) if item.name in known}
    return store.Cutoffs(**{name: now - period for name, period in periods.items() if period is not None})


def label_of(table: str) -> str:
    """Return the label of a table for people."""
    return _LABELS.get(table) or next((k.label for k in store.KINDS if k.table.name == table), table.replace("_", " "))


def plan(session: Connection, settings: Settings, now: datetime | None = None) -> tuple[PlannedRemoval, ...]:
    """Return what a pruning would remove, the largest first."""
    at = cutoffs(settings, now or moment(session))
    going = store.plan(session, at)
    if at.audit_log is not None and (entries := audit.prunable(session, at.audit_log)):
        going[_AUDIT_LOG] = entries
    per_row = {size.table: size.bytes / size.rows for size in store.sizes(session) if size.rows}
    lines = [
        PlannedRemoval(name, label_of(name), rows, round(rows * per_row.get(name, 0))) for name, rows in going.items()
    ]
    return tuple(sorted(lines, key=lambda line: (-line.bytes, line.table)))


def request(session: Connection, actor: Actor) -> jobs.JobView:
    """Request a pruning, or return the unfinished one. Raises RefusedError."""
    actor.require_every_project()
    job = jobs.get(session, jobs.request(session, jobs.RETENTION, jobs.ANYWHERE, actor.name))
    audit.record(session, actor, Action.RETENTION_REQUEST, job.id)
    return job


def is_due(session: Connection, key: str) -> bool:
    """Return whether the daily pruning is due.

    ``key``: `jobs.ANYWHERE` for the database, or a machine's for its files.
    """
    last = jobs.last(session, jobs.RETENTION, key)
    return last is None or (last.state.terminal and moment(session) - last.created_at >= EVERY)


@dataclass
class Pruning:
    """One run of a pruning job.

    ``now`` fixes the clock in tests. ``rest`` sleeps between transactions.
    """

    settings: Settings
    database: Database
    job: jobs.Job
    actor: Actor
    report: Callable[[Progress], None] = lambda progress: None
    now: datetime | None = None
    rest: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        self._removed: dict[str, int] = dict(self.job.parameters.get("removed", {}))
        self._size = _FIRST

    def run(self) -> Mapping[str, int]:
        """Remove expired data and end the job. Returns the number of rows by table. Raises LeaseLost, ScannerError."""
        with self.database.read() as session:
            at = cutoffs(self.settings, self.now or moment(session))
        for kind in store.KINDS:
            if kind.is_on(at):
                self._prune(kind, at)
        broken = self._prune_audit_log(at)
        with self.database.read() as session:
            sizes = [[size.table, size.rows, size.bytes] for size in store.sizes(session)]
        self.database.transact(lambda session: self._end(session, sizes, broken))
        return self._removed

    def _prune(self, kind: store.Kind, at: store.Cutoffs) -> None:
        after: tuple[object, ...] | None = None
        while True:
            self.report(Progress(Stage.RECORD, f"pruning: {kind.label.lower()}", sum(self._removed.values()), 0))
            with self.database.read() as session:
                keys = store.candidates(session, kind, at, after=after, limit=_LOOK)
            found = list(keys)
            while found:
                part, found = found[: self._size], found[self._size :]
                self._batch(lambda session, part=part: store.remove(session, kind, at, part))  # type: ignore[misc]
            if len(keys) < _LOOK:
                return
            # Keyset paging: what was kept (a row that is still referred to) is passed over, so that the loop ends.
            after = keys[-1]

    def _batch(self, work: Callable[[Connection], store.Batch]) -> int:
        """Run one transaction, then pause as long as it took: others get at least half of the database's time.

        Returns the number of removed rows.
        """
        while True:
            began = time.monotonic()
            total = dict[str, int]()

            def write(session: Connection, total: dict[str, int] = total) -> store.Batch:
                done = work(session)
                # The transaction may be tried again after a conflict. What the first try counted must not be counted
                # twice.
                total.clear()
                total |= {
                    table: self._removed.get(table, 0) + done.rows.get(table, 0)
                    for table in {*self._removed, *done.rows}
                }
                jobs.keep(session, self.job, {**self.job.parameters, "removed": total})
                return done

            done = self.database.transact(write)
            # A scan is being recorded, and may be about to refer to these rows. Nothing was removed; the same batch
            # is tried again.
            if done.busy:
                self.rest(_BUSY_PAUSE)
                continue
            self._removed = total
            took = time.monotonic() - began
            if took > _LONG:
                self._size = max(_SMALLEST, self._size // 2)
            elif took < _SHORT:
                self._size = min(_LARGEST, self._size * 2)
            self.rest(max(_PAUSE, took))
            return sum(done.rows.values())

    def _prune_audit_log(self, at: store.Cutoffs) -> str:
        """Prune the audit log. Returns why it was not pruned (its chain is broken); empty on success."""
        before = at.audit_log
        if before is None:
            return ""
        try:
            while self._batch(lambda session: store.Batch(_count_entries(audit.prune(session, before, self._size)))):
                self.report(Progress(Stage.RECORD, "pruning: audit log", sum(self._removed.values()), 0))
        # A chain that does not verify is evidence of tampering. Pruning it would destroy that evidence.
        except audit.BrokenChain as error:
            return str(error)
        return ""

    def _end(self, session: Connection, sizes: object, broken: str) -> None:
        measured = datetime.now(UTC).isoformat(timespec="seconds")
        jobs.keep(session, self.job, {"removed": self._removed, "sizes": sizes, "measured_at": measured})
        if self._removed:
            audit.record(session, self.actor, Action.RETENTION_PRUNE, self.job.id, detail={"removed": self._removed})
        if broken:
            jobs.fail(session, self.job, "audit_log_broken", f"{broken}: run dockwarden audit-log verify")
            return
        jobs.finish(session, self.job, f"{sum(self._removed.values()):,} rows removed")


def _count_entries(entries: int) -> dict[str, int]:
    return {_AUDIT_LOG: entries} if entries else {}


def run_from_job(job: jobs.JobView) -> Run:
    removed = {str(name): int(rows) for name, rows in dict(job.parameters.get("removed", {})).items()}
    return Run(
        job.id,
        job.state,
        job.requested_by,
        job.started_at or job.created_at,
        job.finished_at,
        removed,
        job.message,
    )


def storage(session: Connection, settings: Settings) -> Storage:
    """Return the disk usage. Table sizes are from the last pruning: measuring reads the whole SQLite file."""
    found = jobs.last(session, jobs.RETENTION, jobs.ANYWHERE)
    sizes = found.parameters.get("sizes") if found else None
    if found is None or sizes is None:
        tables, measured = store.sizes(session), None
    else:
        tables = tuple(store.Size(str(table), int(rows), int(size)) for table, rows, size in sizes)
        measured = datetime.fromisoformat(found.parameters["measured_at"])
    places = {
        "Advisories": settings.advisories_dir,
        "Layers": settings.blobs_dir,
        "Work directories": settings.work_dir,
    }
    directories = {name: sum(_files(place)) for name, place in places.items() if place.is_dir()}
    return Storage(store.total(session), tables, measured, directories, run_from_job(found) if found else None)


def _files(directory: Path) -> Iterator[int]:
    """Yield the allocated bytes of each file. Files that vanish or cannot be read are skipped."""
    seen = set[int]()
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                found = (Path(place) / name).lstat()
            except OSError:
                continue
            if found.st_ino not in seen:  # OCI layouts hard-link blobs: count each once
                seen.add(found.st_ino)
                yield found.st_blocks * 512
