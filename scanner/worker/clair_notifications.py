"""Processes notifications of Clair: images whose findings changed with newer advisories. They are matched again without
their layers.

A notification is a job (``store.jobs``). Only the notification's id is taken from the webhook; the changes are read
from the configured Clair, page by page. The notification is acknowledged after all work is done, so that Clair repeats
it if the process dies before.
"""

from __future__ import annotations

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
from scanner.model.plurals import number_of
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, Lane, Progress, ScanReport, ScanRequest, Stage
from scanner.policy.evaluate import evidence_digest
from scanner.scanning.pipeline import with_end_of_life
from scanner.scanning.system import as_static
from scanner.services import decisions
from scanner.store import images, jobs, matches, scans
from scanner.store.session import Database

_MAX_PAGES = 10_000  # a notifier that pages without an end must not hold the job for ever
_RECOMPUTED = frozenset(("unsupported_os", "no_advisories"))  # gaps that the new report contains if they still apply
Report = Callable[[Progress], None]


def run(job: jobs.Job, settings: Settings, database: Database, report: Report) -> None:
    """Renew all known images of the notification, then acknowledge it. Raises EngineError or LeaseLost."""
    identifier = str(job.parameters["notification"])
    seconds = settings.limits.engine_seconds
    renewed = rescans = 0
    with ClairClient(settings, seconds) as client:
        digests = list(dict.fromkeys(_manifests(client, identifier)))
        for number, digest in enumerate(digests):
            report(Progress(Stage.SCAN, "matching images that Clair reported", number, len(digests)))
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
        jobs.finish(session, job, f"{number_of(renewed, 'image')} renewed, {number_of(rescans, 'scan')} queued")


def _manifests(client: ClairClient, identifier: str) -> Iterator[Digest]:
    """Digests of the images in a notification. None if the notification does not exist (any more)."""
    following = ""
    for _ in range(_MAX_PAGES):
        page = client.notification(identifier, following)
        if page is None:
            return
        items, place = page.get("notifications"), page.get("page")
        if not isinstance(items, list | None) or not isinstance(place, dict):
            raise EngineError("Clair's notification does not follow its schema", reason="scanner_output_invalid")
        for item in items or []:
            try:
                yield Digest(item["manifest"] if isinstance(item, dict) else "")
            except (ImageError, KeyError, TypeError) as error:
                raise EngineError(
                    "Clair's notification has no valid image digest", reason="scanner_output_invalid"
                ) from error
        following = place.get("next") or ""
        if not isinstance(following, str) or not following or set(following) <= {"0", "-"}:
            return
    raise EngineError("Clair's notification has too many pages", reason="scanner_output_invalid")


def renew(job: jobs.Job, settings: Settings, database: Database, listing_id: int, digest: Digest) -> bool:
    """Write new evidence and decisions for one listed image.

    Returns False if a scan is needed, which is then queued.
    """
    with database.session() as session:  # not read-only: it locks the listing for a moment
        former = _evidence(session, listing_id)
    item = next((i for i in former.images if i.image.digest == digest), None) if former else None
    if former is None or item is None:
        return True  # removed in the meantime
    answer = _ask(item, settings)

    def write(session: Connection) -> bool:
        jobs.check(session, job)
        name = images.lock_listing(session, listing_id)
        if name is None:
            return True
        if answer is None:
            target = f"{name.repository}{':' + name.tag if name.tag else ''}@{name.digest}"
            engine = "both" if len(item.engines) > 1 else "clair"
            request = ScanRequest(target, None, engine, Lane.BACKGROUND, True, name.project, "clair", "clair")
            scans.request(session, request)
            return False
        current = images.evidence(session, name.report_id)
        found = _with(current, digest, answer)
        decided = decisions.decide_all(session, found, catalog.known_names(), catalog.remedies())
        images.renew(session, name, current, found, evidence_digest(found), decided)
        matches.note_basis(
            session,
            listing_id,
            found,
            decisions.epss_thresholds(decisions.enabled_policies(session, catalog.known_names())),
        )
        return True

    return database.transact(write)


def _evidence(session: Connection, listing_id: int) -> ScanReport | None:
    name = images.lock_listing(session, listing_id)
    return images.evidence(session, name.report_id) if name else None


def _ask(item: ImageReport, settings: Settings) -> EngineReport | None:
    """Clair's current report; None if it has no index of the image, or the image was never scanned with Clair."""
    former = next((engine for engine in item.engines if engine.engine == "clair"), None)
    if former is None or not former.coverage.packages:
        return None
    engine = catalog.engines()["clair"]
    assert isinstance(engine, ClairEngine)
    answer = engine.match(item.image, settings, settings.limits.engine_seconds)
    if answer is None:
        return None
    return carry_over_gaps(former, with_end_of_life(feeds.annotate(settings, answer), datetime.now(UTC).date()))


def carry_over_gaps(former: EngineReport, answer: EngineReport) -> EngineReport:
    """Add the gaps that our own examination of the layers found for the former report: the same packages were
    matched.
    """
    if former.coverage.os_family == NO_OS:
        answer = as_static(answer)
    kept = [gap for gap in former.incomplete if gap.reason not in _RECOMPUTED and gap not in answer.incomplete]
    return replace(answer, incomplete=(*answer.incomplete, *kept))


def _with(former: ScanReport, digest: Digest, answer: EngineReport) -> ScanReport:
    """Replace Clair's report of one image in the evidence. Everything else stays."""
    parts = tuple(
        replace(item, engines=tuple(answer if e.engine == "clair" else e for e in item.engines))
        if item.image.digest == digest
        else item
        for item in former.images
    )
    return replace(former, images=parts)
