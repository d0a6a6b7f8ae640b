"""Polls and imports of a real registry: what a webhook lost is found once; an import scans what was there before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner import queue
from scanner.config import Secret, Settings
from scanner.errors import ConflictError, UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, ScanRequest, ScanState
from scanner.registry.auth import CredentialStore
from scanner.registry.client import Access, RegistryClient
from scanner.services import reconciliation as use_cases
from scanner.store import deliveries, jobs, reconciliation, registries, scans, tags
from scanner.store.reconciliation import FoundKind
from scanner.store.schema import job, scan
from scanner.store.session import Database
from scanner.worker import reconciliation as slices
from scanner.worker.worker import Worker
from tests.databases import BACKENDS, migrated_url
from tests.servers import Registry

KEY = Secret("a secret key for tests, long enough")


def run_slices(settings: Settings, database: Database, job_id: str, most: int) -> jobs.JobView:
    """Run slices of a job, without waiting between them, until it ends; at most so many."""
    worker = Worker(settings, database, queue.make_app(settings))
    for _ in range(most):
        with database.session() as session:
            if jobs.get(session, job_id).state.terminal:
                break
            session.execute(job.update().where(job.c.id == job_id).values(next_at=0.0))
        worker.reconcile_once()
    with database.read() as session:
        return jobs.get(session, job_id)


@dataclass
class Place:
    """A database with one registry, and a worker for it. ``host`` is the registry's own."""

    settings: Settings
    database: Database
    registry: Registry
    layouts: Path
    registry_id: str
    prefix: str

    def push(self, name: str, sample: str = "good") -> str:
        """Push a sample as ``prefix/name``. Returns host/repository:tag."""
        version = {"good": "1.4.2", "vulnerable": "1.4.1"}[sample]
        layout = self.layouts / "shop" / sample
        self.registry.push(f"oci:{layout}:{version}", f"{self.prefix}/{name}")
        return f"{self.registry.host}/{self.prefix}/{name}"

    def poll(self) -> jobs.JobView:
        with self.database.session() as session:
            found = use_cases.poll(session, COMMAND_LINE, self.registry_id)
        return self.work(found.id)

    def work(self, job_id: str) -> jobs.JobView:
        return run_slices(self.settings, self.database, job_id, 60)

    def scans(self, source: str) -> list[str]:
        with self.database.read() as session:
            query = sa.select(scan.c.target).where(scan.c.source == source).order_by(scan.c.target)
            return [target.partition("@")[0] for target in session.execute(query).scalars()]

    def found(self, *kinds: FoundKind) -> list[reconciliation.FoundTag]:
        with self.database.read() as session:
            return list(reconciliation.list_found_tags(session, None, kinds=kinds or tuple(FoundKind)).items)


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    settings: Settings,
    tmp_path: Path,
    plain_registry: Registry,
    sample_layouts: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    monkeypatch.setattr(slices, "_GRACE_SECONDS", 0.0)
    settings = Settings(home=settings.home, secret_key=KEY)
    database = Database(migrated_url(getattr(request, "param", "sqlite"), tmp_path))
    prefix = f"poll{uuid.uuid4().hex[:12]}"
    with database.session() as session:
        registry_id = registries.add(session, plain_registry.host, KEY, insecure=True).id
        use_cases.change(session, COMMAND_LINE, registry_id, include=[f"{prefix}/**"])
    yield Place(settings, database, plain_registry, sample_layouts, registry_id, prefix)
    database.engine.dispose()


def webhook(place: Place) -> str:
    with place.database.session() as session:
        return deliveries.create_hook(session, "pushes", "distribution", place.registry_id, KEY)[0]


def deliver(place: Place, hook: str, target: str, *, finish: bool = True) -> None:
    """What a delivery leaves: a scan that is linked to it, and with ``finish`` its note in the tag ledger."""
    with place.database.session() as session:
        name, tag = target.rsplit(":", 1)
        asked = ScanRequest(
            f"{target}@{digest_of(place, target)}" if finish else target,
            lane=Lane.PUSH,
            source="webhook:distribution",
        )
        delivery = deliveries.record(session, hook, target, 1, "1 images")
        scans.request(session, asked, delivery_id=delivery.id)
        if finish:
            tags.note(session, name, tag, digest_of(place, target), "webhook:distribution")


def digest_of(place: Place, target: str) -> str:
    access = Access(insecure=True)
    with RegistryClient(place.registry.host, place.settings, CredentialStore(place.settings), access) as client:
        return str(client.tag_digest(Reference.parse(target)))


@pytest.mark.parametrize("place", BACKENDS, indirect=True)
def test_a_lost_push_is_found_once_and_counted_against_its_webhook(place: Place) -> None:
    hook = webhook(place)
    first = place.push("app:1")
    deliver(place, hook, first)
    assert place.poll().message == "1 tag in 1 repository", "an announced push was found again"
    place.push("app:1", "vulnerable")  # moved, and its event is lost
    lost = place.push("app:2")
    done = place.poll()
    assert (done.state, done.message) == (ScanState.DONE, "2 tags in 1 repository; 2 lost pushes")
    assert place.scans("poll") == sorted((first, lost))
    assert place.poll().message == "2 tags in 1 repository", "a lost push was found twice"
    assert len(place.scans("poll")) == 2
    with place.database.read() as session:
        assert reconciliation.lost_by_webhook(session) == {hook: 2}
        (now, before) = tags.history(session, None, repository=first.rsplit(":", 1)[0], tag="1").items
        queued = scans.list_scans(session, None).items
    assert (now.source, now.previous, before.source) == ("poll", before.digest, "webhook:distribution")
    assert {s.request.lane for s in queued if s.request.source == "poll"} == {Lane.PUSH}
    moved = next(item for item in place.found() if item.tag == "1")
    assert (moved.kind, moved.webhook, moved.former) == (FoundKind.LOST, "pushes", before.digest)
    assert moved.scan_id
    assert digest_of(place, first) == moved.digest


def test_a_push_that_is_announced_during_the_poll_is_not_lost(place: Place) -> None:
    hook = webhook(place)
    deliver(place, hook, place.push("app:1"))
    place.poll()
    deliver(place, hook, place.push("app:2", "vulnerable"), finish=False)  # its scan has not read the tag yet
    assert place.poll().message == "2 tags in 1 repository"
    assert place.scans("poll") == []


def test_tags_from_before_the_first_poll_are_scanned_behind_pushes_up_to_a_number(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "_FIRST_MOST", 1)
    webhook(place)
    place.push("old:1")
    place.push("old:2")
    expected = "2 tags in 1 repository; 1 tag seen for the first time; 1 older tag not scanned: import the registry"
    assert place.poll().message == expected
    with place.database.read() as session:
        (queued,) = scans.list_scans(session, None).items
        view = reconciliation.get(session, place.registry_id)
        assert reconciliation.lost_by_webhook(session) == {}
    assert (queued.request.lane, queued.request.source) == (Lane.BACKGROUND, "poll")
    assert view.baseline_at is not None
    assert view.last is not None
    assert view.last["left"] == 1
    place.push("new:1")
    assert place.poll().message == "3 tags in 2 repositories; 1 lost push", "since the first poll, a new tag is a push"


def test_a_registry_that_fails_is_tried_again_and_then_reported(place: Place) -> None:
    with place.database.session() as session:
        gone = registries.add(session, "127.0.0.1:1", KEY, insecure=True).id
        job_id = use_cases.poll(session, COMMAND_LINE, gone).id
    ended = place.work(job_id)
    assert ended.state is ScanState.RETRY_WAIT
    assert ended.reason == "registry_unreachable"


def test_a_scheduled_poll_is_requested_once_an_interval(place: Place) -> None:
    with place.database.session() as session:
        use_cases.change(session, COMMAND_LINE, place.registry_id, seconds=3600)
        assert use_cases.schedule(session) == 1
        assert use_cases.schedule(session) == 0
        last = use_cases.last_poll(session, COMMAND_LINE, place.registry_id)
    assert last is not None
    assert last.requested_by == "schedule"


@pytest.mark.parametrize(("field", "value"), [("seconds", 60), ("seconds", 8 * 86400), ("include", ["a\nb"])])
def test_a_setting_that_is_refused_names_its_field(place: Place, field: str, value: object) -> None:
    with place.database.session() as session, pytest.raises(UsageError) as refused:
        use_cases.change(session, COMMAND_LINE, place.registry_id, **{field: value})  # type: ignore[arg-type]
    assert refused.value.field == ("interval" if field == "seconds" else field)


def finish(place: Place) -> None:
    """End everything that is queued, without the work of a scan."""
    while True:
        with place.database.session() as session:
            held = scans.claim(session, "w", ["push", "background"], 60)
            if held is None:
                return
            digest = Digest(held.request.target.partition("@")[2])
            scans.finish_without_image(session, held, digest, "no image")


def start(place: Place, **more: object) -> use_cases.ImportView:
    with place.database.session() as session:
        asked = {"include": [f"{place.prefix}/**"], **more}
        return use_cases.start_import(session, COMMAND_LINE, place.registry_id, **asked)  # type: ignore[arg-type]


def test_an_import_counts_then_scans_what_has_no_evidence_and_shows_its_progress(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.push("a:1")
    place.push("b:1", "vulnerable")
    place.push("b:2")
    counted = start(place, dry_run=True)
    assert place.work(counted.id).message == "3 tags in 2 repositories; 0 scanned before"
    assert place.scans("import") == []
    imported = start(place, exclude=[f"{place.prefix}/a"])
    worked = place.work(imported.id)
    assert worked.state is ScanState.QUEUED, "it waits for its scans"
    with place.database.session() as session:
        view = use_cases.last_import(session, COMMAND_LINE, place.registry_id)
        assert view is not None
        assert (view.phase, view.repositories, view.tags, view.queued, view.ended) == ("scanning", 1, 2, 2, 0)
        assert {s.request.lane for s in scans.list_scans(session, None).items} == {Lane.BACKGROUND}
        with pytest.raises(ConflictError, match="unfinished"):
            use_cases.start_import(session, COMMAND_LINE, place.registry_id)
    finish(place)
    assert place.work(imported.id).message == "2 tags in 1 repository; 2 scanned"
    again = start(place)
    assert place.work(again.id).state is ScanState.QUEUED
    with place.database.read() as session:
        view = use_cases.last_import(session, COMMAND_LINE, place.registry_id)
    assert view is not None
    assert (view.tags, view.known, view.queued, view.remaining) == (3, 2, 1, 1), (
        "what has evidence is not scanned again"
    )


def test_a_killed_worker_costs_no_scan_and_no_second_one(place: Place) -> None:
    for number in range(3):
        place.push(f"a:{number}")
    imported = start(place)
    with place.database.session() as session:  # killed in the middle of a slice: its lease expires
        held = jobs.claim(session, "killed", {jobs.IMPORT: None}, -100.0)
        assert held is not None
        jobs.sweep(session)
    assert place.work(imported.id).state is ScanState.QUEUED
    assert len(place.scans("import")) == 3
    with place.database.read() as session:
        view = jobs.get(session, imported.id)
    assert view.lost == 0, "progress makes up for a lost worker"


def test_cancelling_an_import_stops_its_waiting_scans_but_not_those_a_push_has_joined(place: Place) -> None:
    place.push("a:1")
    joined = place.push("a:2", "vulnerable")
    imported = start(place)
    place.work(imported.id)
    with place.database.session() as session:
        target = f"{joined}@{digest_of(place, joined)}"
        ticket = scans.request(session, ScanRequest(target, lane=Lane.PUSH, source="webhook:distribution"))
        assert not ticket.created
        assert scans.get(session, ticket.scan_id).request.lane is Lane.PUSH, (
            "a push does not wait in the lane it joined"
        )
        view = use_cases.cancel_import(session, COMMAND_LINE, place.registry_id)
        assert (view.state, view.ended) == (ScanState.CANCELLED, 1)
        assert scans.get(session, ticket.scan_id).state is ScanState.QUEUED
        with pytest.raises(ConflictError):
            use_cases.cancel_import(session, COMMAND_LINE, place.registry_id)
