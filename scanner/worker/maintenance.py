"""Keeps advisories current: updates them from mirrors, matches all known packages again, and renews changed decisions.

Each is a job (``store.jobs``): one at a time, under a lease, every commit with its fence. A job starts by determining
what is left to do, so another worker can continue after a crash. Only `base_watch` contacts registries.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.advisories import feeds, sources
from scanner.config import Settings
from scanner.engines.base import Engine, MatchJob, MatchReport
from scanner.errors import EngineError, ScannerError
from scanner.model.actor import SERVICE
from scanner.model.finding import Incomplete, Matched, Vulnerability
from scanner.model.matching import Basis, Package, rebuilt
from scanner.model.plurals import number_of
from scanner.model.scan import Lane, Progress, ScanReport, ScanRequest, ScanState, Stage
from scanner.registry.work_directories import work_directory
from scanner.services import decisions, dry_runs, retention
from scanner.store import images, jobs, matches, revocations, scans
from scanner.store.retention import block_pruning
from scanner.store.session import Database, moment
from scanner.worker import base_watch, clair_notifications, receipts, storage

log = logging.getLogger(__name__)

_AT_ONCE = 20_000  # packages in one run of an engine
_LINKED_AT_ONCE = 50
# Before a failed re-match is tried again.
_AFTER_FAILURE = timedelta(minutes=15)
Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Upkeep:
    """What these jobs need."""

    settings: Settings
    database: Database
    slot: str = "0"  # name of the worker's engine directory
    cancelled: Callable[[], bool] = lambda: False  # asked between two steps: the worker stops, or lost its lease

    @property
    def place(self) -> str:
        """Key of this machine's advisories directory, which its workers share."""
        return f"{socket.gethostname()}:{self.settings.advisories_dir.absolute()}"[:200]


def run(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Run a claimed job to its recorded end. Raises ScannerError, or LeaseLost if another worker owns it now."""
    if job.kind == jobs.RETENTION:
        prune(job, upkeep, report)
        return
    if job.kind == jobs.BASES:
        base_watch.run(job, upkeep.settings, upkeep.database, report, upkeep.cancelled)
        return
    if job.kind == jobs.DRY_RUN:
        dry_runs.Examination(upkeep.database, job, report).run()
        return
    if job.kind == jobs.CLAIR:
        clair_notifications.run(job, upkeep.settings, upkeep.database, report)
        return
    if job.kind == jobs.RECEIPTS:
        receipts.run(job, upkeep.settings, upkeep.database, report)
        return
    {jobs.UPDATE: update, jobs.REMATCH: rematch, jobs.REQUEUE: requeue}[job.kind](job, upkeep, report)


def plan(upkeep: Upkeep) -> Mapping[str, Collection[str] | None]:
    """Request the jobs that are due, and return which jobs this worker can do: kinds, each with its allowed keys.

    Due are sources of advisories, and evidence that is older than the advisories here. A worker with older advisories
    than those of the last re-match requests nothing: otherwise two workers would re-match in turns for ever.
    """
    can: dict[str, Collection[str] | None] = {jobs.UPDATE: (upkeep.place, jobs.ANYWHERE), jobs.REQUEUE: None}
    if upkeep.settings.clair_url:
        can[jobs.CLAIR] = None
    rematches = can[jobs.REMATCH] = set[str]()
    if sources.due(upkeep.settings):
        with upkeep.database.session() as session:
            jobs.request(session, jobs.UPDATE, upkeep.place, "schedule")
    for engine in catalog.engines().values():
        if engine.looks_up:
            rematches |= _plan_rematch(upkeep, engine)
    if base_watch.plan(upkeep.settings, upkeep.database):
        can[jobs.BASES] = None
    _plan_pruning(upkeep)
    _plan_receipts(upkeep)
    can[jobs.RECEIPTS] = None
    can[jobs.RETENTION] = (upkeep.place, jobs.ANYWHERE)
    return can


def _plan_pruning(upkeep: Upkeep) -> None:
    """Request a nightly pruning of the database, and of the files on each machine."""
    keys: dict[str, dict[str, object]] = {jobs.ANYWHERE: {}, upkeep.place: {"files": True}}
    with upkeep.database.read() as session:
        due = [key for key in keys if retention.is_due(session, key)]
    for key in due:
        with upkeep.database.session() as session:
            jobs.request(session, jobs.RETENTION, key, "schedule", keys[key])


def _plan_receipts(upkeep: Upkeep) -> None:
    """Request a job if a registry that takes receipts lacks some."""
    with upkeep.database.read() as session:
        due = receipts.is_due(session, upkeep.settings)
    if due:
        with upkeep.database.session() as session:
            jobs.request(session, jobs.RECEIPTS, jobs.ANYWHERE, "schedule")


def _plan_rematch(upkeep: Upkeep, engine: Engine) -> set[str]:
    """Keys of the re-matches that can be done here: the one with our advisories, and requested ones. Empty if none."""
    with upkeep.database.read() as session:
        try:
            on = current(upkeep.settings, engine, session)
        except EngineError as error:
            log.debug("cannot match: %s", error)
            return set()
        if not matches.is_newest(session, on, revocations.active(session)):
            return set()
        last = jobs.last(session, jobs.REMATCH, key_of(on))
        late = _late(session, on, last)
    if late:
        request_rematch(upkeep.database, on, "advisories")
    return {key_of(on), f"{engine.id}:{jobs.ANYWHERE}"}


def _late(session: Connection, on: Basis, last: jobs.JobView | None) -> bool:
    """True if there is something to match that the last run with this basis did not leave, and a failure is long enough
    ago.
    """
    if last is None or last.state in (ScanState.FAILED, ScanState.DEAD):
        rested = last is None or last.finished_at is None or moment(session) - last.finished_at > _AFTER_FAILURE
        return rested and (matches.due(session, on) or bool(matches.listings_without_basis(session, 1)))
    # What a complete run left over needs a scan. Evidence that was recorded later may be older than the advisories
    # here.
    return last.state.terminal and matches.due(session, on, since=last.started_at or last.created_at)


def key_of(on: Basis) -> str:
    """One re-match for each basis."""
    return f"{on.engine}:{on.id}"


def request_rematch(database: Database, on: Basis, requested_by: str) -> str:
    """Request a re-match with this basis. Unfinished ones with other bases are superseded."""
    with database.session() as session:
        jobs.supersede(session, jobs.REMATCH, key_of(on))
        return jobs.request(session, jobs.REMATCH, key_of(on), requested_by, {"engine": on.engine, "basis": on.id})


def current(settings: Settings, engine: Engine, session: Connection) -> Basis:
    """The current basis of answers. Raises EngineError if the engine cannot answer."""
    advisories = engine.advisories(settings)
    rungs = decisions.epss_thresholds(decisions.enabled_policies(session, catalog.known_names()))
    feed_status = feeds.all_status(settings)
    return Basis(engine.id, engine.version(settings), engine.binary(settings), advisories, feed_status, rungs)


# Asking the mirrors


def update(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Update every source that is due, or those in the job. A failed source does not stop the others."""
    names = job.parameters.get("sources") or sources.due(upkeep.settings)
    messages, failed = [], None
    for number, name in enumerate(names):
        report(Progress(Stage.FETCH, f"updating {name}", number, len(names)))
        try:
            messages.append(f"{name}: {'new' if sources.update(upkeep.settings, name) else 'nothing new'}")
        except ScannerError as error:
            log.warning("%s was not updated: %s", name, error)
            messages.append(f"{name}: {error.reason}: {error}")
            failed = error
    with upkeep.database.session() as session:
        # Each source has its own time for the next attempt. A retry of the job would repeat the successful ones as
        # well.
        if failed is not None:
            jobs.fail(session, job, failed.reason, "; ".join(messages))
        else:
            jobs.finish(session, job, "; ".join(messages) or "no source was due")


# Checking the store's invariants

_NIGHTLY = timedelta(hours=24)
_INVARIANT_SECONDS = 600.0


def check_invariants(database: Database, worker: str, every: timedelta = _NIGHTLY) -> bool:
    """Check once a day whether the store's invariants hold. Returns whether the check was due.

    The job that records it fails if one is violated; readiness and the settings page report that.
    """

    def begin(session: Connection) -> jobs.Job | None:
        last = jobs.last(session, jobs.INVARIANTS, jobs.ANYWHERE)
        if last is not None and (not last.state.terminal or moment(session) - last.created_at < every):
            return None
        jobs.request(session, jobs.INVARIANTS, jobs.ANYWHERE, "schedule")
        return jobs.claim(session, worker, {jobs.INVARIANTS: None}, _INVARIANT_SECONDS)

    job = database.uncrossed(begin)
    if job is None:
        return False
    with database.read() as session:
        broken = scans.invariants(session)
    for sentence in broken:
        log.error("an invariant is violated: %s", sentence)

    def end(session: Connection) -> None:
        if broken:
            jobs.fail(
                session, job, "invariant_broken", f"{len(broken)} invariants are violated: " + "; ".join(broken[:10])
            )
        else:
            jobs.finish(session, job, "all invariants hold")

    database.uncrossed(end)
    return True


# Pruning


def prune(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Prune the database's rows, or this machine's files: see ``services.retention`` and ``worker.storage``."""
    if not job.parameters.get("files"):
        removed = retention.Pruning(upkeep.settings, upkeep.database, job, SERVICE, report).run()
        if removed:
            log.info("pruned %d rows: %s", sum(removed.values()), removed)
        return
    freed = storage.prune_files(upkeep.settings)
    with upkeep.database.session() as session:
        jobs.keep(session, job, {**job.parameters, "freed": dict(freed)})
        jobs.finish(session, job, f"{sum(freed.values())} bytes of files removed")


# Matching all known packages


def rematch(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Look up every known package version once, and renew the evidence that changed. See ``store.matches``."""
    engine = catalog.engines()[job.parameters["engine"]]
    with upkeep.database.read() as session:
        on = current(upkeep.settings, engine, session)
    with upkeep.database.session() as session:
        jobs.check(session, job)
        if job.parameters.get("basis", on.id) != on.id:
            jobs.fail(
                session,
                job,
                "advisories_changed",
                "the advisories were replaced before the job started; the next job uses the new ones",
            )
            return
        matches.begin(session, on)
    linked = _link(job, upkeep, on, report)
    looked_up = _look_up(job, upkeep, engine, on, report)
    changed, found = _renew(job, upkeep, on, report)
    with upkeep.database.session() as session:
        rescans = _rescan(session, matches.listings_to_scan(session, on))
        confirmed = matches.confirm(session, on)
        message = (
            f"{number_of(looked_up, 'package')} looked up; {number_of(changed, 'image')} decided again, "
            f"{number_of(found, 'new finding')}; "
            f"{confirmed} confirmed"
        )
        message += f"; {rescans} need a scan, which is queued" if rescans else ""
        message += f"; {linked} older records were added" if linked else ""
        jobs.finish(session, job, message)
    log.info("re-match with %s: %s", on.advisories.id, message)


def _link(job: jobs.Job, upkeep: Upkeep, on: Basis, report: Report) -> int:
    """Link evidence that was recorded before package answers were stored."""
    count, last = 0, 0
    while True:

        def link(session: Connection, last: int = last) -> list[tuple[int, str]]:
            jobs.check(session, job)
            block_pruning(session)
            late = matches.listings_without_basis(session, _LINKED_AT_ONCE, after=last)
            for listing_id, report_id in late:
                matches.link(session, listing_id, images.evidence(session, report_id), on.rungs)
            return late

        late = upkeep.database.transact(link)
        if not late:
            return count
        count, last = count + len(late), late[-1][0]
        report(Progress(Stage.SCAN, "reading older evidence", count))


def _look_up(job: jobs.Job, upkeep: Upkeep, engine: Engine, on: Basis, report: Report) -> int:
    """Run the engine once for each release.

    Answers are stored at once, so another worker can continue with the rest.
    """
    with upkeep.database.read() as session:
        waiting = matches.releases(session, on)
    done, total = 0, sum(waiting.values())
    for release in waiting:
        while True:
            report(Progress(Stage.SCAN, f"looking up packages of {release or 'languages'}", done, total))
            with upkeep.database.read() as session:
                packages = matches.unanswered_packages(session, on, release, _AT_ONCE)
            if not packages:
                break
            answer = _match(upkeep, engine, [item for _, item in packages], release)
            _require_basis(on, answer)
            found = _with_feed_values(upkeep.settings, answer.found)
            given = {number: found.get(item.key) for number, item in packages}
            supported = answer.os_supported

            def keep(
                session: Connection,
                given: Mapping[int, Sequence[Vulnerability] | None] = given,
                release: str = release,
                supported: bool | None = supported,
            ) -> None:
                jobs.check(session, job)
                new = matches.answer(session, on, given, release, supported)
                images.refresh(session, (v for number in new for v in given[number] or ()))

            upkeep.database.transact(keep)
            done += len(packages)
    return done


def _match(upkeep: Upkeep, engine: Engine, packages: Sequence[Package], release: str) -> MatchReport:
    settings = upkeep.settings
    cache = settings.home.absolute() / "cache" / f"{engine.id}-{upkeep.slot}"
    with work_directory(settings, "match") as work:
        return engine.look_up(
            MatchJob(packages, release, work, cache, settings, settings.limits.engine_seconds, upkeep.cancelled)
        )


def _require_basis(on: Basis, answer: MatchReport) -> None:
    """Raise EngineError if the advisories were replaced during the run: its answers are then useless, and the next
    attempt uses the new ones.
    """
    if (answer.version, answer.binary, answer.advisories.id) != (on.version, on.binary, on.advisories.id):
        raise EngineError(
            "the advisories changed during the run", reason="advisories_changed", retryable=True, retry_after=1.0
        )


def _with_feed_values(
    settings: Settings, found: Mapping[str, tuple[Vulnerability, ...]]
) -> Mapping[str, tuple[Vulnerability, ...]]:
    """Add the feeds' values, with one lookup for all vulnerabilities."""
    items = iter(feeds.with_feed_values(settings, (v for key in found for v in found[key])))
    return {key: tuple(next(items) for _ in found[key]) for key in found}


def _renew(job: jobs.Job, upkeep: Upkeep, on: Basis, report: Report) -> tuple[int, int]:
    """Renew each image whose evidence changed, in a transaction of its own, at most at the configured rate."""
    with upkeep.database.read() as session:
        names = matches.changed_listings(session, on)
    pause = 1 / upkeep.settings.rematch_per_second if upkeep.settings.rematch_per_second > 0 else 0.0
    renewed, found, started = 0, 0, time.monotonic()
    for number, listing_id in enumerate(names):
        report(Progress(Stage.EVALUATE, "deciding changed images again", number, len(names)))

        def renew(session: Connection, listing_id: int = listing_id) -> int | None:
            jobs.check(session, job)
            return renew_one(session, listing_id, on)

        new = upkeep.database.transact(renew)
        if new is not None:
            renewed, found = renewed + 1, found + new
        time.sleep(max(0.0, started + (number + 1) * pause - time.monotonic()))
    return renewed, found


def renew_one(session: Connection, listing_id: int, on: Basis) -> int | None:
    """Write new evidence and decisions for one listed image, from the stored components and the newest answers.

    Returns the number of new findings, or None if answers are missing.
    """
    name = images.lock_listing(session, listing_id)
    answers = matches.answers(session, on, listing_id) if name else None
    if name is None or answers is None:
        return None
    former, supported = images.evidence(session, name.report_id), matches.supported_releases(session, on)
    try:
        found = renewed(former, answers, on, supported)
    except KeyError:  # packages that differ only in their source: forged, or rebuilt elsewhere
        everything = matches.answers(session, on, listing_id, only_changed=False)
        found = renewed(former, everything or {}, on, supported)
    decided = decisions.decide_all(session, found, catalog.known_names(), catalog.remedies(), recorded=False)
    new = images.renew(session, name, former, found, decided[0].decision.evidence, decided)
    matches.note_basis(session, listing_id, found, on.rungs)
    matches.accept(session, on, listing_id)
    return new


def renewed(
    former: ScanReport, answers: Mapping[str, Sequence[Vulnerability]], on: Basis, supported: Mapping[str, bool | None]
) -> ScanReport:
    """The evidence with the newest answers. Everything else stays as it was."""
    by = Matched(on.version, on.binary, datetime.now(UTC))
    parts = []
    for image in former.images:
        engines = []
        for engine in image.engines:
            if engine.engine == on.engine:
                coverage = engine.coverage
                release = f"{coverage.os_family} {coverage.os_version}".strip()
                # All packages have answers now, so there are advisories to compare with.
                gaps = tuple(gap for gap in engine.incomplete if gap.reason != "no_advisories")
                coverage = replace(coverage, without_advisories=())
                if supported.get(release) is False and coverage.os_supported is not False:
                    coverage = replace(coverage, os_supported=False)
                    detail = f"{release} is past its end of life, so new vulnerabilities are no longer recorded for it"
                    gaps = (*gaps, Incomplete("unsupported_os", detail))
                engine = replace(
                    engine,
                    vulnerabilities=rebuilt(engine, answers),
                    advisories=on.advisories,
                    feeds=on.feeds,
                    matched=by,
                    coverage=coverage,
                    incomplete=gaps,
                )
            engines.append(engine)
        parts.append(replace(image, engines=tuple(engines)))
    return replace(former, images=tuple(parts))


# Scanning again if nothing else helps


def _rescan(session: Connection, listings: Sequence[int]) -> int:
    """Queue scans in the background lane. Returns their number."""
    count = 0
    for listing_id in listings:
        name = images.lock_listing(session, listing_id)
        if name is not None and name.repository:
            target = f"{name.repository}{':' + name.tag if name.tag else ''}@{name.digest}"
            request = ScanRequest(
                target,
                None,
                matches.engine_of(session, listing_id),
                Lane.BACKGROUND,
                True,
                name.project,
                "upkeep",
                "upkeep",
            )
            scans.request(session, request)
            count += 1
    return count


def requeue(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Scan again all images whose decision is based on something revoked, a hundred in a transaction.

    Progress is stored, so an interrupted job continues.
    """
    with upkeep.database.read() as session:
        what = revocations.get(session, job.parameters["revocation"]).what
    done = dict(job.parameters)
    while True:
        with upkeep.database.session() as session:
            names = revocations.affected_listings(session, what, limit=100, after=done.get("after", 0))
            if not names:
                jobs.finish(session, job, f"{done.get('queued', 0)} scans queued")
                return
            queued = done.get("queued", 0) + _rescan(session, [name.listing_id for name in names])
            done |= {"after": names[-1].listing_id, "queued": queued}
            jobs.keep(session, job, done)
        report(Progress(Stage.SCAN, f"queueing scans of images based on {what}", queued))
