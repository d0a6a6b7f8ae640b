"""What Clair's notifier reports: images that newer advisories say something else about.

They are matched anew, without their layers.

A notification is a job (``store.jobs``). Of what the webhook was sent only the notification's id counts; what
changed is asked of the configured Clair, page by page. It is acknowledged when everything is done, so that whatever
dies in between is told again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.advisories import feeds
from scanner.config import Settings
from scanner.engines._clair_client import ClairClient
from scanner.engines.clair import ClairEngine
from scanner.errors import EngineError, ImageError
from scanner.model.finding import NO_OS, EngineReport
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, Lane, Progress, ScanReport, ScanRequest, Stage
from scanner.policy.evaluate import evidence_digest
from scanner.scanning.pipeline import supported
from scanner.scanning.system import as_static
from scanner.services import decisions
from scanner.store import images, jobs, matches, scans
from scanner.store.session import Database

log = logging.getLogger(__name__)

_MAX_PAGES = 10_000
_RECKONED_ANEW = frozenset(("unsupported_os", "no_advisories"))  # gaps that the new answer tells itself
Report = Callable[[Progress], None]


def run(job: jobs.Job, settings: Settings, database: Database, report: Report) -> None:
    """Renew every image that the notification names and we know, then acknowledge it.

    Raises EngineError, or LeaseLost.
    """
    identifier = str(job.parameters["notification"])
    seconds = settings.limits.engine_seconds
    renewed = rescans = 0
    with ClairClient(settings, seconds) as client:
        named = list(dict.fromkeys(_manifests(client, identifier)))
        for number, digest in enumerate(named):
            report(Progress(Stage.SCAN, "matching anew what Clair reported", number, len(named)))
            with database.read() as session:
                listings = matches.resting_on(session, digest, "clair")
            for listing_id in listings:
                if renew(job, settings, database, listing_id, digest):
                    renewed += 1
                else:
                    rescans += 1
        with database.session() as session:
            jobs.check(session, job)
        client.acknowledge(identifier)
    with database.session() as session:
        jobs.finish(session, job, f"{renewed} names renewed, {rescans} scans queued")


def _manifests(client: ClairClient, identifier: str) -> Iterator[Digest]:
    """The images of a notification. One that is not there (any more) names none."""
    following = ""
    for _ in range(_MAX_PAGES):
        page = client.notification(identifier, following)
        if page is None:
            return
        items, place = page.get("notifications"), page.get("page")
        if not isinstance(items, list | None) or not isinstance(place, dict):
            raise EngineError("Clair's notification is not of its schema", reason="scanner_output_invalid")
        for item in items or []:
            try:
                yield Digest(item["manifest"] if isinstance(item, dict) else "")
            except (ImageError, KeyError, TypeError) as error:
                raise EngineError("Clair's notification names no image", reason="scanner_output_invalid") from error
        following = place.get("next") or ""
        if not isinstance(following, str) or not following or set(following) <= {"0", "-"}:
            return
    raise EngineError("Clair's notification has no end", reason="scanner_output_invalid")


def renew(job: jobs.Job, settings: Settings, database: Database, listing_id: int, digest: Digest) -> bool:
    """New evidence and decisions under one name. False: only a scan can tell, and one was queued."""
    with database.session() as session:  # not a read-only one: it holds the name for a moment
        former = _evidence(session, listing_id)
    item = next((i for i in former.images if i.image.digest == digest), None) if former else None
    if former is None or item is None:
        return True  # gone meanwhile
    answer = _ask(item, settings)

    def write(session: Connection) -> bool:
        jobs.check(session, job)
        name = images.lock_listing(session, listing_id)
        if name is None:
            return True
        if answer is None:
            target = f"{name.repository}{':' + name.tag if name.tag else ''}@{name.digest}"
            engine = "both" if len(item.engines) > 1 else "clair"
            asked = ScanRequest(target, None, engine, Lane.BACKGROUND, True, name.project, "clair", "clair")
            scans.request(session, asked)
            return False
        current = images.evidence(session, name.report_id)
        found = _with(current, digest, answer)
        made = decisions.decide_all(session, found, catalog.known(), catalog.remedies())
        images.renew(session, name, current, found, evidence_digest(found), made)
        matches.note_basis(
            session, listing_id, found, decisions.epss_thresholds(decisions.enabled_policies(session, catalog.known()))
        )
        return True

    return database.transact(write)


def _evidence(session: Connection, listing_id: int) -> ScanReport | None:
    name = images.lock_listing(session, listing_id)
    return images.evidence(session, name.report_id) if name else None


def _ask(item: ImageReport, settings: Settings) -> EngineReport | None:
    """Clair's word by now; None where it has no index of the image, or never had a word on it."""
    former = next((engine for engine in item.engines if engine.engine == "clair"), None)
    if former is None or not former.coverage.packages:
        return None
    engine = catalog.engines()["clair"]
    assert isinstance(engine, ClairEngine)
    answer = engine.match(item.image, settings, settings.limits.engine_seconds)
    if answer is None:
        return None
    return carried_over(former, supported(feeds.annotate(settings, answer), datetime.now(UTC).date()))


def carried_over(former: EngineReport, answer: EngineReport) -> EngineReport:
    """The new answer with what our own reading of the layers had to say to the former one: the same packages were
    matched.
    """
    if former.coverage.os_family == NO_OS:
        answer = as_static(answer)
    kept = [gap for gap in former.incomplete if gap.reason not in _RECKONED_ANEW and gap not in answer.incomplete]
    return replace(answer, incomplete=(*answer.incomplete, *kept))


def _with(former: ScanReport, digest: Digest, answer: EngineReport) -> ScanReport:
    """The evidence with Clair's new word on one image; of everything else it stays what it was."""
    parts = tuple(
        replace(item, engines=tuple(answer if e.engine == "clair" else e for e in item.engines))
        if item.image.digest == digest
        else item
        for item in former.images
    )
    return replace(former, images=parts)
