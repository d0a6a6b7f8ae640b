"""Liveness, readiness and metrics. Public, so they contain no names of images.

``/readyz`` distinguishes what the service needs to answer (its database) from what it does not (without a broker scans
are delayed, but recorded decisions are still answered).
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson
from flask import Blueprint, Flask, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from scanner import __version__, catalog, queue
from scanner.advisories import sources
from scanner.errors import ScannerError
from scanner.model.reasons import advice, sentence
from scanner.model.scan import ScanState
from scanner.store import inventory, jobs, notifications, outbox, scans
from scanner.store.session import NOT_AT_HEAD
from web.auth import PUBLIC, permission
from web.resources import Resources, resources

bp = Blueprint("health", __name__)
# Probes ask every few seconds, and from several places.
_REMEMBERED_SECONDS = 15
_LEAST_FREE = 64 << 20  # bytes of the disk of DOCKWARDEN_HOME
_EXPLANATIONS = {
    "disk_full": "The disk of DOCKWARDEN_HOME is full. Scans fail, and nothing can be changed. Free some space there.",
    "broker_unreachable": "The broker does not answer. Scans still run, but start a few seconds later. Start the "
    "broker, or correct DOCKWARDEN_BROKER_URL.",
    "advisories_expired": "The advisory database is older than the limit, so vulnerabilities count as unknown. Import "
    "or mirror a newer database.",
    "engine_db_unavailable": "There is no advisory database, so vulnerabilities count as unknown. Import one: "
    "dockwarden advisories import FILE.",
    "invariant_broken": "The nightly check of the database found rows that contradict each other. The worker log names "
    "them. Please report this as a bug.",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check of readiness. ``needed``: if it fails, the service is not ready.

    ``detail``: which schema the database has and what to run; empty for other faults. ``/readyz`` is public, and other
    errors can name hosts and files.
    """

    name: str
    ok: bool
    needed: bool
    reason: str = ""
    detail: str = ""

    @property
    def explanation(self) -> str:
        """What a failed check means for users and what to do, as sentences for the pages."""
        if self.detail or self.reason in _EXPLANATIONS:
            return self.detail or _EXPLANATIONS[self.reason]
        if self.name == "engine":
            where = "No image can be scanned." if self.needed else "Images are scanned only on workers that have it."
            return f"{sentence(self.reason)} {where} {advice(self.reason)}."
        if self.name == "advisories":
            return f"{sentence(self.reason)} Vulnerabilities count as unknown. {advice(self.reason)}."
        return sentence(self.reason)

    def document(self) -> dict[str, object]:
        return {"ok": self.ok, "reason": self.reason, **({"detail": self.detail} if self.detail else {})}


@bp.get("/healthz")
@permission(PUBLIC)
def alive() -> Response:
    """This process answers. Nothing else is checked, because a restart would not repair anything else."""
    return Response(b'{"status":"ok"}', mimetype="application/json")


@bp.get("/readyz")
@permission(PUBLIC)
def ready() -> Response:
    """200 ``ready`` or ``degraded``, 503 ``unavailable``, and the reason of each check."""
    checks = current_app.extensions["readiness"].checks(resources())
    failed = [check for check in checks if not check.ok]
    status = "unavailable" if any(check.needed for check in failed) else "degraded" if failed else "ready"
    document = {"status": status, "checks": {check.name: check.document() for check in checks}}
    return Response(orjson.dumps(document), 503 if status == "unavailable" else 200, mimetype="application/json")


class Readiness:
    """Runs the checks at most every few seconds.

    An engine's version costs a process, and any client can ask for it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        self._checks: tuple[Check, ...] = ()

    def checks(self, resources: Resources) -> tuple[Check, ...]:
        # One thread asks, the others wait for its answer: an engine's process for each of many probes would be an
        # attack.
        with self._lock:
            if time.monotonic() >= self._until:
                self._checks = (
                    _database(resources),
                    _broker(resources),
                    _engine(resources),
                    _advisories(resources),
                    _disk(resources),
                    _invariants(resources),
                )
                self._until = time.monotonic() + _REMEMBERED_SECONDS
            return self._checks


def _judge(name: str, needed: bool, ask: Callable[[], object]) -> Check:
    try:
        ask()
    except ScannerError as error:
        detail = f"{error}: {error.hint}" if error.reason == NOT_AT_HEAD else ""
        return Check(name, False, needed, error.reason, detail)
    return Check(name, True, needed)


def _database(resources: Resources) -> Check:
    return _judge("database", True, resources.database.check_head)


def _broker(resources: Resources) -> Check:
    return (
        Check("broker", True, False)
        if queue.reachable(resources.celery)
        else Check("broker", False, False, "broker_unreachable")
    )


def _engine(resources: Resources) -> Check:
    """In a distributed installation the workers have the engine, not this process."""
    chosen = catalog.engines_of(resources.settings.engine)
    if not chosen:
        return Check("engine", False, resources.settings.embedded, "no_such_engine")
    return _judge("engine", resources.settings.embedded, lambda: [e.version(resources.settings) for e in chosen])


def _advisories(resources: Resources) -> Check:
    chosen = catalog.engines_of(resources.settings.engine)
    if not chosen:
        return Check("advisories", False, False, "no_such_engine")
    try:
        built = [engine.advisories(resources.settings).updated_at for engine in chosen]
    except ScannerError as error:
        return Check("advisories", False, False, error.reason)
    oldest = datetime.now(UTC) - timedelta(hours=resources.settings.advisories_max_age_hours)
    # An unknown age is not fresh.
    fresh = all(moment is not None and moment >= oldest for moment in built)
    return Check("advisories", fresh, False, "" if fresh else "advisories_expired")


def _disk(resources: Resources, least: int = _LEAST_FREE) -> Check:
    """Before the disk is full, SQLite and the workers need room for their temporary files."""
    try:
        free = shutil.disk_usage(resources.settings.home).free
    except OSError:  # a web process of a distributed installation may keep nothing there
        return Check("disk", True, False)
    return Check("disk", free >= least, False, "" if free >= least else "disk_full")


def _invariants(resources: Resources) -> Check:
    """The result of the nightly check of the store's invariants. A violation is a bug; the log has the rows."""
    try:
        resources.database.check_head()
        with resources.database.read() as session:
            last = jobs.last(session, jobs.INVARIANTS, jobs.ANYWHERE)
    except ScannerError as error:
        return Check("invariants", False, False, error.reason)
    # Not DEAD or CANCELLED: then nothing was found out, and the next night asks again.
    broken = last is not None and last.state is ScanState.FAILED
    return Check("invariants", not broken, False, last.reason if last is not None and broken else "")


class StoreCollector(Collector):
    """Gauges read from the database on each scrape: correct in every process, and after every restart."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """See ``Collector.collect``. While the database is unavailable, its gauges are absent."""
        build = GaugeMetricFamily("dockwarden_build_info", "Version of the running service.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield from _advisory_gauges(self._resources)
        try:
            # All gauges of one scrape come from one snapshot: sums over lanes and states agree with each other.
            with self._resources.database.read() as session:
                figures = scans.figures(session)
                running_workloads = inventory.figures(session)
                last = jobs.list_jobs(session, [jobs.REMATCH], limit=1)
                pruning = jobs.last(session, jobs.RETENTION, jobs.ANYWHERE)
                messages = notifications.figures(session)
                unrouted = outbox.oldest_unrouted(session)
        except ScannerError:
            return
        running = GaugeMetricFamily("dockwarden_rematch_running", "1 while packages are matched with newer advisories.")
        running.add_metric([], float(bool(last) and not last[0].state.terminal))
        yield running
        by_state = GaugeMetricFamily("dockwarden_scans", "Scans by lane and state.", labels=["lane", "state"])
        for (lane, state), count in figures.by_state.items():
            by_state.add_metric([lane, state], count)
        yield by_state
        workloads = GaugeMetricFamily(
            "dockwarden_workloads",
            "Running workloads by environment and verdict (of configuration and image together).",
            labels=["environment", "verdict"],
        )
        for (environment, verdict), count in sorted(running_workloads.items()):
            workloads.add_metric([environment, verdict], count)
        yield workloads
        oldest = GaugeMetricFamily("dockwarden_oldest_queued_seconds", "Age of the scan that has been queued longest.")
        oldest.add_metric([], figures.oldest_queued_seconds)
        yield oldest
        yield from _storage_gauges(pruning)
        yield from _notification_gauges(messages, unrouted)


def _notification_gauges(messages: notifications.Figures, unrouted: datetime | None) -> Iterable[GaugeMetricFamily]:
    """By format, because the name of a channel is nobody's business here."""
    labels = ["channel", "outcome"]
    kept = GaugeMetricFamily("dockwarden_notifications", "Messages that are kept, by outcome.", labels=labels)
    for (form, state), count in sorted(messages.by_state.items()):
        kept.add_metric([form, state], count)
    oldest = GaugeMetricFamily(
        "dockwarden_notification_oldest_pending_seconds", "Since when the oldest event or message is overdue."
    )
    waited = (datetime.now(UTC) - unrouted).total_seconds() if unrouted else 0.0
    oldest.add_metric([], max(0.0, waited, messages.oldest_seconds))
    yield from (kept, oldest)


def _advisory_gauges(resources: Resources) -> Iterable[GaugeMetricFamily]:
    """Age and health of each source, by this process's advisories directory."""
    age = GaugeMetricFamily(
        "dockwarden_advisories_age_seconds", "Age of the source since the publisher built it.", labels=["source"]
    )
    failures = GaugeMetricFamily(
        "dockwarden_advisories_update_failures", "Failed updates since the last successful one.", labels=["source"]
    )
    checked = GaugeMetricFamily(
        "dockwarden_advisories_checked_timestamp_seconds",
        "Time of the last check or import of the source.",
        labels=["source"],
    )
    for line in sources.overview(resources.settings):
        name = [line.source.name]
        if line.age is not None:
            age.add_metric(name, line.age.total_seconds())
        # A source that is imported by hand cannot fail.
        if line.mirror or line.source.failures:
            failures.add_metric(name, line.source.failures)
        if line.source.checked:
            checked.add_metric(name, line.source.checked)
    yield from (age, failures, checked)


def _storage_gauges(last: jobs.JobView | None) -> Iterable[GaugeMetricFamily]:
    """Results of the last pruning. Sizes are not measured on each scrape, because that reads the whole database."""
    size = GaugeMetricFamily("dockwarden_table_bytes", "Size including indexes, at the last pruning.", labels=["table"])
    removed = GaugeMetricFamily("dockwarden_pruned_rows", "Rows removed by the last pruning.", labels=["table"])
    ended = GaugeMetricFamily("dockwarden_pruned_timestamp_seconds", "Time when the last pruning ended; 0: not ended.")
    well = GaugeMetricFamily("dockwarden_pruning_failed", "1 if the last pruning failed.")
    if last is not None:
        for table, _, bytes_ in last.parameters.get("sizes", ()):
            size.add_metric([table], bytes_)
        for table, rows in last.parameters.get("removed", {}).items():
            removed.add_metric([table], rows)
        ended.add_metric([], last.finished_at.timestamp() if last.finished_at else 0.0)
        well.add_metric([], float(last.state in (ScanState.FAILED, ScanState.DEAD)))
    yield from (size, removed, ended, well)


@bp.get("/metrics")
@permission(PUBLIC)
def metrics() -> Response:
    """Prometheus text format."""
    registry: CollectorRegistry = current_app.extensions["metrics"]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def install(app: Flask, resources: Resources) -> CollectorRegistry:
    """Register this app's metrics registry, with the gauges from the database."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StoreCollector(resources))
    app.extensions["metrics"] = registry
    app.extensions["readiness"] = Readiness()
    return registry
