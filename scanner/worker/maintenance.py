"""Keeping advisories current: ask the mirrors, look the fleet's packages up anew, and decide again whatever that
changed.

Each is a job (``store.jobs``): one at a time, under a lease, every commit under its fence. A body begins by finding
out what is left to do, so that whoever is killed is followed by somebody who goes on. None of them asks a registry
for anything.
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
from scanner.model.scan import Lane, Progress, ScanReport, ScanRequest, ScanState, Stage
from scanner.registry.work_directories import work_directory
from scanner.services import decisions, retention
from scanner.store import images, jobs, matches, revocations, scans
from scanner.store.retention import recording
from scanner.store.session import Database, moment
from scanner.worker import clair_notifications, storage

log = logging.getLogger(__name__)

_AT_ONCE = 20_000  # packages in one run of an engine
_LINKED_AT_ONCE = 50
_AFTER_FAILURE = timedelta(minutes=15)
Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Upkeep:
    """What these jobs work with."""

    settings: Settings
    database: Database
    slot: str = "0"
    cancelled: Callable[[], bool] = lambda: False

    @property
    def place(self) -> str:
        """Whose directory of advisories this is: workers on one machine share one."""
        return f"{socket.gethostname()}:{self.settings.advisories_dir.absolute()}"[:200]


def run(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Bring a claimed job to its recorded end. Raises ScannerError, or LeaseLost when it is another worker's by now."""
    if job.kind == jobs.RETENTION:
        prune(job, upkeep, report)
        return
    if job.kind == jobs.CLAIR:
        clair_notifications.run(job, upkeep.settings, upkeep.database, report)
        return
    {jobs.UPDATE: update, jobs.REMATCH: rematch, jobs.REQUEUE: requeue}[job.kind](job, upkeep, report)


def plan(upkeep: Upkeep) -> Mapping[str, Collection[str] | None]:
    """Ask for the jobs whose time has come, and say which jobs a worker here can do: kinds, each with the keys it
    may have.

    Due are sources of advisories, and evidence that is older than the advisories in force here. A worker whose own
    advisories are older than those that the fleet was matched with asks for nothing: two of them would match it to
    and fro for ever.
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
    _plan_pruning(upkeep)
    can[jobs.RETENTION] = (upkeep.place, jobs.ANYWHERE)
    return can


def _plan_pruning(upkeep: Upkeep) -> None:
    """Each night once the database, and on each machine its files."""
    keys: dict[str, dict[str, object]] = {jobs.ANYWHERE: {}, upkeep.place: {"files": True}}
    with upkeep.database.read() as session:
        due = [key for key in keys if retention.is_due(session, key)]
    for key in due:
        with upkeep.database.session() as session:
            jobs.request(session, jobs.RETENTION, key, "schedule", keys[key])


def _plan_rematch(upkeep: Upkeep, engine: Engine) -> set[str]:
    """The keys of re-matches that can be done here: the one on our advisories, and what somebody asked for.

    Empty: none can.
    """
    with upkeep.database.read() as session:
        try:
            on = current(upkeep.settings, engine, session)
        except EngineError as error:
            log.debug("nothing to match with: %s", error)
            return set()
        if not matches.is_newest(session, on, revocations.active(session)):
            return set()
        last = jobs.last(session, jobs.REMATCH, key_of(on))
        late = _late(session, on, last)
    if late:
        request_rematch(upkeep.database, on, "advisories")
    return {key_of(on), f"{engine.id}:{jobs.ANYWHERE}"}


def _late(session: Connection, on: Basis, last: jobs.JobView | None) -> bool:
    """Whether there is something to match that was not left over by a run on this very basis, and what failed has
    rested.
    """
    if last is None or last.state in (ScanState.FAILED, ScanState.DEAD):
        rested = last is None or last.finished_at is None or moment(session) - last.finished_at > _AFTER_FAILURE
        return rested and (matches.due(session, on) or bool(matches.unlinked(session, 1)))
    # What a whole run left, only an image itself can tell; what was recorded since may be older than the advisories
    # here.
    return last.state.terminal and matches.due(session, on, since=last.started_at or last.created_at)


def key_of(on: Basis) -> str:
    """One re-match for each basis."""
    return f"{on.engine}:{on.id}"


def request_rematch(database: Database, on: Basis, requested_by: str) -> str:
    """Ask for a re-match on this basis. Those on others that have not ended are of no use any more."""
    with database.session() as session:
        jobs.supersede(session, jobs.REMATCH, key_of(on))
        return jobs.request(session, jobs.REMATCH, key_of(on), requested_by, {"engine": on.engine, "basis": on.id})


def current(settings: Settings, engine: Engine, session: Connection) -> Basis:
    """What an answer that is given now rests on. Raises EngineError where none could be given."""
    advisories = engine.advisories(settings)
    rungs = decisions.epss_thresholds(decisions.enabled_policies(session, catalog.known()))
    asked = feeds.all_status(settings)
    return Basis(engine.id, engine.version(settings), engine.binary(settings), advisories, asked, rungs)


# Asking the mirrors


def update(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Every source that is due, or those that the job names.

    One that fails does not keep the others from being asked.
    """
    names = job.parameters.get("sources") or sources.due(upkeep.settings)
    said, failed = [], None
    for number, name in enumerate(names):
        report(Progress(Stage.FETCH, f"asking for {name}", number, len(names)))
        try:
            said.append(f"{name}: {'new' if sources.update(upkeep.settings, name) else 'nothing new'}")
        except ScannerError as error:
            log.warning("%s was not updated: %s", name, error)
            said.append(f"{name}: {error.reason}: {error}")
            failed = error
    with upkeep.database.session() as session:
        # A source has its own time for the next attempt; the job would only repeat those that went well.
        if failed is not None:
            jobs.fail(session, job, failed.reason, "; ".join(said))
        else:
            jobs.finish(session, job, "; ".join(said) or "nothing was due")


# Looking whether what must always hold does

_NIGHTLY = timedelta(hours=24)
_INVARIANT_SECONDS = 600.0


def check_invariants(database: Database, worker: str, every: timedelta = _NIGHTLY) -> bool:
    """Look once a day whether the store's invariants hold.

    The job that records it fails where one does not: readiness and the settings page say so. Returns whether it was
    due.
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
        log.error("an invariant does not hold: %s", sentence)

    def end(session: Connection) -> None:
        if broken:
            jobs.fail(session, job, "invariant_broken", f"{len(broken)} do not hold: " + "; ".join(broken[:10]))
        else:
            jobs.finish(session, job, "every invariant holds")

    database.uncrossed(end)
    return True


# Removing what is older than it is kept


def prune(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """The database's rows, or this machine's files: see `services.retention` and `worker.storage`."""
    if not job.parameters.get("files"):
        removed = retention.Pruning(upkeep.settings, upkeep.database, job, SERVICE, report).run()
        if removed:
            log.info("pruned %d rows: %s", sum(removed.values()), removed)
        return
    freed = storage.prune_files(upkeep.settings)
    with upkeep.database.session() as session:
        jobs.keep(session, job, {**job.parameters, "freed": dict(freed)})
        jobs.finish(session, job, f"{sum(freed.values())} bytes of files removed")


# Matching the fleet


def rematch(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Look every package version of the fleet up once, and renew the evidence that says something else.

    See ``store.matches``.
    """
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
                "the advisories were replaced before it began; the next one is on the new ones",
            )
            return
        matches.begin(session, on)
    linked = _link(job, upkeep, on, report)
    asked = _ask(job, upkeep, engine, on, report)
    changed, found = _renew(job, upkeep, on, report)
    with upkeep.database.session() as session:
        rescans = _rescan(session, matches.listings_to_scan(session, on))
        confirmed = matches.confirm(session, on)
        message = (
            f"{asked} packages looked up; {changed} images decided anew, {found} new findings; {confirmed} confirmed"
        )
        message += f"; {rescans} can only be told by a scan, which is queued" if rescans else ""
        message += f"; {linked} recorded before were added" if linked else ""
        jobs.finish(session, job, message)
    log.info("re-match with %s: %s", on.advisories.id, message)


def _link(job: jobs.Job, upkeep: Upkeep, on: Basis, report: Report) -> int:
    """Evidence that was recorded when nobody noted yet what it says of each package."""
    count, last = 0, 0
    while True:

        def link(session: Connection, last: int = last) -> list[tuple[int, str]]:
            jobs.check(session, job)
            recording(session)
            late = matches.unlinked(session, _LINKED_AT_ONCE, after=last)
            for listing_id, report_id in late:
                matches.link(session, listing_id, images.evidence(session, report_id), on.rungs)
            return late

        late = upkeep.database.transact(link)
        if not late:
            return count
        count, last = count + len(late), late[-1][0]
        report(Progress(Stage.SCAN, "reading evidence recorded before", count))


def _ask(job: jobs.Job, upkeep: Upkeep, engine: Engine, on: Basis, report: Report) -> int:
    """One run of the engine for each release. What was answered is kept at once: whoever goes on asks for the rest."""
    with upkeep.database.read() as session:
        waiting = matches.releases(session, on)
    done, total = 0, sum(waiting.values())
    for release in waiting:
        while True:
            report(Progress(Stage.SCAN, f"looking up packages of {release or 'languages'}", done, total))
            with upkeep.database.read() as session:
                packages = matches.unanswered(session, on, release, _AT_ONCE)
            if not packages:
                break
            answer = _match(upkeep, engine, [item for _, item in packages], release)
            _must_be(on, answer)
            found = _annotated(upkeep.settings, answer.found)
            given = {number: found.get(item.key) for number, item in packages}
            there = answer.os_supported

            def keep(
                session: Connection,
                given: Mapping[int, Sequence[Vulnerability] | None] = given,
                release: str = release,
                there: bool | None = there,
            ) -> None:
                jobs.check(session, job)
                new = matches.answer(session, on, given, release, there)
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


def _must_be(on: Basis, answer: MatchReport) -> None:
    """Advisories that were replaced while we asked: what was answered is of no use, and the next attempt begins on
    the new ones.
    """
    if (answer.version, answer.binary, answer.advisories.id) != (on.version, on.binary, on.advisories.id):
        raise EngineError(
            "the advisories changed meanwhile", reason="advisories_changed", retryable=True, retry_after=1.0
        )


def _annotated(
    settings: Settings, found: Mapping[str, tuple[Vulnerability, ...]]
) -> Mapping[str, tuple[Vulnerability, ...]]:
    """With what the feeds say, looked up for all of them at once."""
    items = iter(feeds.annotated(settings, (v for key in found for v in found[key])))
    return {key: tuple(next(items) for _ in found[key]) for key in found}


def _renew(job: jobs.Job, upkeep: Upkeep, on: Basis, report: Report) -> tuple[int, int]:
    """Each image whose evidence says something else, in a transaction of its own, and no more of them in a second
    than was set.
    """
    with upkeep.database.read() as session:
        names = matches.changed(session, on)
    pause = 1 / upkeep.settings.rematch_per_second if upkeep.settings.rematch_per_second > 0 else 0.0
    renewed, found, started = 0, 0, time.monotonic()
    for number, listing_id in enumerate(names):
        report(Progress(Stage.EVALUATE, "deciding anew what changed", number, len(names)))

        def renew(session: Connection, listing_id: int = listing_id) -> int | None:
            jobs.check(session, job)
            return renew_one(session, listing_id, on)

        new = upkeep.database.transact(renew)
        if new is not None:
            renewed, found = renewed + 1, found + new
        time.sleep(max(0.0, started + (number + 1) * pause - time.monotonic()))
    return renewed, found


def renew_one(session: Connection, listing_id: int, on: Basis) -> int | None:
    """New evidence and decisions under one name, from the stored components and the newest answers.

    None: not all are there.
    """
    name = images.lock_listing(session, listing_id)
    answers = matches.answers(session, on, listing_id) if name else None
    if name is None or answers is None:
        return None
    former, supported = images.evidence(session, name.report_id), matches.supported(session, on)
    try:
        found = renewed(former, answers, on, supported)
    except KeyError:  # packages that only their sources tell apart: forged, or rebuilt elsewhere
        everything = matches.answers(session, on, listing_id, only_changed=False)
        found = renewed(former, everything or {}, on, supported)
    made = decisions.decide_all(session, found, catalog.known(), catalog.remedies(), recorded=False)
    new = images.renew(session, name, former, found, made[0].decision.evidence, made)
    matches.note_basis(session, listing_id, found, on.rungs)
    matches.accept(session, on, listing_id)
    return new


def renewed(
    former: ScanReport, answers: Mapping[str, Sequence[Vulnerability]], on: Basis, supported: Mapping[str, bool | None]
) -> ScanReport:
    """The evidence with what the newest answers say: of everything else it stays what it was."""
    by = Matched(on.version, on.binary, datetime.now(UTC))
    parts = []
    for image in former.images:
        engines = []
        for engine in image.engines:
            if engine.engine == on.engine:
                coverage = engine.coverage
                release = f"{coverage.os_family} {coverage.os_version}".strip()
                # Every package was answered for, or nobody would be here: by now there are advisories to compare with.
                gaps = tuple(gap for gap in engine.incomplete if gap.reason != "no_advisories")
                coverage = replace(coverage, without_advisories=())
                if supported.get(release) is False and coverage.os_supported is not False:
                    coverage = replace(coverage, os_supported=False)
                    detail = f"{release} is past its end of life: new vulnerabilities are no longer listed for it"
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


# Scanning again what nothing else can tell


def _rescan(session: Connection, listings: Sequence[int]) -> int:
    """Queue scans where nobody waits. Returns how many."""
    count = 0
    for listing_id in listings:
        name = images.lock_listing(session, listing_id)
        if name is not None and name.repository:
            target = f"{name.repository}{':' + name.tag if name.tag else ''}@{name.digest}"
            asked = ScanRequest(
                target,
                None,
                matches.engine_of(session, listing_id),
                Lane.BACKGROUND,
                True,
                name.project,
                "upkeep",
                "upkeep",
            )
            scans.request(session, asked)
            count += 1
    return count


def requeue(job: jobs.Job, upkeep: Upkeep, report: Report) -> None:
    """Scan again whatever rests on what was revoked, a hundred names in a transaction; where the job was cut off it
    goes on.
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
        report(Progress(Stage.SCAN, f"queueing scans of what rests on {what}", queued))
