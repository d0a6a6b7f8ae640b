"""Base watch: ask registries what the tags of base images name now, scan what is new, and say what to rebuild.

An image names its own base, so it could name any host. Only registries that are configured for the image's project are
asked, and only for repositories that this project owns: the rule of every scan.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from urllib.parse import quote

from sqlalchemy.engine import Connection

from scanner.config import Settings, secret_key
from scanner.errors import NotFoundError, ScannerError
from scanner.model.finding import Severity
from scanner.model.notification import Event, EventKind, Level
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, Progress, ScanRequest, Stage
from scanner.registry.sources import AccessTo, RegistrySource, open_target
from scanner.store import base_watch as store
from scanner.store import jobs, outbox, projects, scans
from scanner.store.session import Database, moment
from scanner.worker.server_scan import configured_access, repository_of

_ASKED_AT_ONCE, _LOOKED_AT_ONCE = 200, 500
_PAUSE_SECONDS = 0.5  # between two requests of one run: nobody waits for an answer
_LIMITED_SECONDS = 900.0  # after an answer "too many requests" without a time
_FAILED_SECONDS = 300.0  # doubled with every failure in a row
_SCAN_LOOK_SECONDS = 30.0  # while the new base is scanned
_PATIENCE = timedelta(hours=1)  # then the event is written without the scan
_IMAGES_TOLD = 100  # in an event
Report = Callable[[Progress], None]


def plan(settings: Settings, database: Database) -> bool:
    """Request the job if a tag or a comparison is due. Returns whether this worker can run it."""
    if settings.bases_interval_hours <= 0:
        return False
    with database.read() as session:
        due = store.is_due(session)
    if due:
        with database.session() as session:
            jobs.request(session, jobs.BASES, jobs.ANYWHERE, "schedule")
    return True


def run(
    job: jobs.Job,
    settings: Settings,
    database: Database,
    report: Report,
    cancelled: Callable[[], bool],
    pause: float = _PAUSE_SECONDS,
) -> None:
    """Ask for what is due, then compare. Each answer is committed, so another worker can continue."""
    with database.session() as session:
        jobs.check(session, job)
        store.tidy(session)
        due = store.to_ask(session, _ASKED_AT_ONCE)
    limited: dict[str, float] = {}  # registries that limit our requests: the seconds until the next
    asked = 0
    for number, one in enumerate(due):
        if cancelled():
            return
        report(Progress(Stage.RESOLVE, f"asking for {one.name.reference}", number, len(due)))
        host = one.name.repository.partition("/")[0]
        if host in limited:
            _commit(database, job, partial(store.put_off, names=[one.name], seconds=limited[host]))
            continue
        if asked:
            time.sleep(pause)
        asked += 1
        wait = _ask(job, one, settings, database)
        if wait is not None:
            limited[host] = wait
    with database.read() as session:
        look = store.to_look(session, _LOOKED_AT_ONCE)
    newer = 0
    for one in look:
        newer += database.transact(partial(_look, job=job, one=one, settings=settings))
    with database.session() as session:
        jobs.finish(session, job, f"tags asked for: {asked}; bases compared: {len(look)}, of which newer: {newer}")


def _commit(database: Database, job: jobs.Job, write: Callable[[Connection], None]) -> None:
    def work(session: Connection) -> None:
        jobs.check(session, job)
        write(session)

    database.transact(work)


# Asking


def _ask(job: jobs.Job, one: store.Watch, settings: Settings, database: Database) -> float | None:
    """Ask a registry for one tag. Returns the seconds to wait if it limits our requests."""
    interval = settings.bases_interval_hours * 3600 * random.uniform(0.85, 1.15)  # spread: not all at the same minute
    name = one.name
    access = configured_access(settings, database, secret_key(settings), name.project, repository_of(name.reference))
    try:
        digest, members = _current(one, settings, access)
    except ScannerError as error:
        reason, message = error.reason, f"{error}"
        wait = min(interval, _FAILED_SECONDS * 2.0 ** min(one.failures, 10))
        limited = reason == "registry_rate_limited"
        if limited:
            wait = max(wait, error.retry_after or _LIMITED_SECONDS)
        _commit(database, job, lambda session: store.failed(session, one, reason, message, wait))
        return wait if limited else None
    _commit(database, job, lambda session: store.record_answer(session, one, digest, members, interval))
    return None


def _current(one: store.Watch, settings: Settings, access: AccessTo) -> tuple[str, tuple[str, ...]]:
    """The digest that the tag names now, and those of the index's images: an image may name either as its base."""
    reference = Reference.parse(one.name.reference)
    with open_target(f"{reference.name}:{reference.tag}", settings, access) as source:
        if isinstance(source, RegistrySource):
            source.client.tries = 1  # nobody waits: a registry that refuses is asked at the next interval
            # Most bases are as they were: one HEAD with an ETag, which few registries count as a pull.
            if one.digest and source.still_names(Digest(one.digest)):
                return one.digest, one.members
        subject = source.resolve()
        children, _ = source.children(subject, None, every=True)
    return str(subject.digest), tuple(str(child.digest) for child in children if child.digest != subject.digest)


# Comparing


def _look(session: Connection, job: jobs.Job, one: store.Watch, settings: Settings) -> bool:
    """Find the images to rebuild, scan what the comparison needs, and write the event once. Returns if there are any.

    The event waits for the scan of the new base, because it tells what a rebuild changes. If the scan ends without
    evidence, the event says that it is not known.
    """
    jobs.check(session, job)
    base = store.WatchedBase(one, store.built_on(session, one))
    if not base.rebuild:
        if one.reported and base.state == "current":
            outbox.add(session, [_resolved_event(base)])
            store.record_comparison(session, one, None, reported="")
        else:
            store.record_comparison(session, one, None)
        return False
    digests = (one.digest, *sorted({image.base for image in base.rebuild})[:5])
    missing = [digest for digest in digests if not store.is_recorded(session, digest, one.name.project)]
    wanted = one.scans or _request(session, one, missing, settings)
    overdue = one.seen_at is not None and moment(session) - one.seen_at > _PATIENCE
    if missing and not overdue and any(not _has_ended(session, identifier) for identifier in wanted):
        store.record_comparison(session, one, _SCAN_LOOK_SECONDS, scans=wanted, comparison=one.comparison)
        return True
    comparison = store.compare(session, one)
    if one.digest in missing:
        comparison = store.Comparison(problem="base_not_scanned")
    if one.reported != one.digest:
        outbox.add(session, [event_of(base, comparison)])
    store.record_comparison(session, one, None, scans=wanted, reported=one.digest, comparison=comparison)
    return True


def _request(session: Connection, one: store.Watch, missing: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Queue a scan of each base without evidence. Returns their ids."""
    name, tickets = one.name, []
    for digest in missing:
        # The newest one keeps its tag. The former ones are known by their digest only: their tag has moved on.
        target = f"{name.reference}@{digest}" if digest == one.digest else f"{name.repository}@{digest}"
        engine = projects.engine_of(session, name.project) or settings.engine
        asked = ScanRequest(target, None, engine, Lane.BACKGROUND, False, name.project, "base watch", "base-watch")
        tickets.append(scans.request(session, asked).scan_id)
    return tuple(tickets)


def _has_ended(session: Connection, identifier: str) -> bool:
    try:
        return scans.get(session, identifier).state.terminal
    except NotFoundError:  # pruned since
        return True


def event_of(base: store.WatchedBase, comparison: store.Comparison) -> Event:
    """The event ``base.newer``: what to rebuild, and what that changes."""
    name, count = base.watch.name, len(base.rebuild)
    urgent = any(comparison.gone.get(one) for one in (Severity.CRITICAL.value, Severity.HIGH.value))
    images = "1 image" if count == 1 else f"{count} images"
    return Event(
        EventKind.BASE_NEWER,
        name.reference,
        f"{name.reference} has a newer image: rebuild {images}{describe(comparison)}",
        name.project,
        level=Level.WARNING if urgent else Level.INFO,
        path=_path(name),
        data={
            "repository": name.repository,
            "tag": name.tag,
            "digest": base.watch.digest,
            "rebuild": [
                {"repository": one.repository, "tag": one.tag, "digest": one.digest, "base": one.base}
                for one in base.rebuild[:_IMAGES_TOLD]
            ],
            "rebuild_count": count,
            "findings_gone": dict(comparison.gone),
            "findings_come": dict(comparison.come),
            "findings_problem": comparison.problem,
        },
    )


def describe(comparison: store.Comparison) -> str:
    """``; 23 findings go, 1 comes``, or that it is not known."""
    if not comparison.known:
        return "; what changes is not known"
    gone, come = sum(comparison.gone.values()), sum(comparison.come.values())
    text = f"; {gone} finding{' goes' if gone == 1 else 's go'}, {come} come{'s' if come == 1 else ''}"
    return text + (" (the new base was not examined completely)" if comparison.problem else "")


def _resolved_event(base: store.WatchedBase) -> Event:
    name = base.watch.name
    headline = f"All images are built on the newest {name.reference}"
    data = {"repository": name.repository, "tag": name.tag, "digest": base.watch.digest}
    return Event(
        EventKind.BASE_NEWER,
        name.reference,
        headline,
        name.project,
        level=Level.INFO,
        resolved=True,
        path=_path(name),
        data=data,
    )


def _path(name: store.Name) -> str:
    return f"/images/bases#{quote(name.reference, safe='')}"
