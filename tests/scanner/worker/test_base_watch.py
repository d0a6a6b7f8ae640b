"""The base watch against a real registry: it asks only where it may, scans what is new, and says once what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.config import Settings, secret_key
from scanner.model.lineage import BaseImage
from scanner.model.notification import Event
from scanner.model.reference import Digest
from scanner.model.scan import Lane
from scanner.queue import make_app
from scanner.store import base_watch, images, jobs, outbox, registries, scans
from scanner.store.schema import base_watch as watches
from scanner.store.session import Database
from scanner.worker import base_watch as worker
from scanner.worker import maintenance
from scanner.worker.worker import Worker
from tests.scanner.store import factories as make
from tests.servers import Registry


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database("sqlite:///:memory:")
    made.upgrade()
    yield made
    made.engine.dispose()


def record(database: Database, name: str, reference: str, flaws: str, base: BaseImage | None = None) -> None:
    """Evidence of an image with a vulnerability for each digit of ``flaws``."""
    packages = [make.package(n) for n in range(9)]
    found = [make.vulnerability(int(n), packages[int(n)]) for n in flaws]
    repository, _, tag = reference.rpartition(":")
    made = make.report(name, packages=packages, vulnerabilities=found, repository=repository, tag=tag)
    if name.startswith("sha256:"):
        subject = replace(made.subject, digest=Digest(name))
        image = replace(made.images[0].image, manifest=subject)
        made = replace(made, subject=subject, images=(replace(made.images[0], image=image),))
    made = replace(made, images=(replace(made.images[0], base=base),))
    with database.session() as session:
        scans.request(session, make.request(made.reference, force=True, lane=Lane.GATE))
        held = scans.claim(session, "w", ["gate"], 60)
        assert held
        images.record(session, held, made, make.evidence(made), [make.decided(made)])


def keep_up(database: Database, settings: Settings) -> None:
    """Run the job if it is due, as a worker does."""
    assert worker.plan(settings, database)
    with database.session() as session:
        job = jobs.claim(session, "w", {jobs.BASES: None}, 60)
    if job is not None:
        worker.run(job, settings, database, lambda progress: None, lambda: False, pause=0)


def due_again(database: Database) -> None:
    with database.session() as session:
        session.execute(watches.update().values(ask_epoch=0.0, look_epoch=0.0))


def events(database: Database) -> list[Event]:
    with database.read() as session:
        rows = outbox.unrouted_events(session, limit=100)
    return [row.event for row in rows if row.event.kind.value == "base.newer"]


def one(database: Database) -> base_watch.WatchedBase:
    with database.read() as session:
        (found,) = base_watch.list_watched(session, None).items
    return found


def queued(database: Database) -> list[scans.ScanView]:
    with database.read() as session:
        return [one for one in scans.list_scans(session, None).items if not one.state.terminal]


def test_a_newer_base_is_scanned_and_said_once(
    database: Database, settings: Settings, plain_registry: Registry, sample_layouts: Path
) -> None:
    name = f"{plain_registry.host}/watched/debian:12"
    plain_registry.push(f"oci:{sample_layouts / 'shop/good'}", "watched/debian:12")
    with database.session() as session:
        registries.add(session, plain_registry.host, secret_key(settings), insecure=True)
    old = Digest.of(b"old")
    record(database, "old", f"{plain_registry.host}/watched/debian:11", "123")
    record(database, "app", f"{plain_registry.host}/shop/app:1", "1234", BaseImage("labels", name, old))
    keep_up(database, settings)
    base = one(database)
    assert base.state == "newer"
    (asked,) = queued(database)
    assert (asked.request.lane, asked.request.source) == (Lane.BACKGROUND, "base-watch")
    assert asked.request.target == f"{name}@{base.watch.digest}"
    due_again(database)
    keep_up(database, settings)
    assert len(queued(database)) == 1, "not once more while it waits"
    assert events(database) == [], "it waits for what the scan finds"
    record(database, base.watch.digest, name, "25")
    due_again(database)
    keep_up(database, settings)
    due_again(database)
    keep_up(database, settings)
    (event,) = events(database)
    assert event.headline == f"{name} has a newer image: rebuild 1 image; 2 findings go, 1 comes"
    assert event.data["rebuild"][0]["repository"] == f"{plain_registry.host}/shop/app"
    assert event.path == f"/images/bases#{name.replace(':', '%3A').replace('/', '%2F')}"
    record(
        database,
        "app-2",
        f"{plain_registry.host}/shop/app:1",
        "24",
        BaseImage("labels", name, Digest(base.watch.digest)),
    )
    keep_up(database, settings)
    assert [one.resolved for one in events(database)] == [False, True], "the rebuild itself makes a look due"
    assert one(database).state == "current"


def test_a_scan_that_fails_is_said_too(
    database: Database, settings: Settings, plain_registry: Registry, sample_layouts: Path
) -> None:
    name = f"{plain_registry.host}/watched/alpine:3"
    plain_registry.push(f"oci:{sample_layouts / 'shop/good'}", "watched/alpine:3")
    with database.session() as session:
        registries.add(session, plain_registry.host, secret_key(settings), insecure=True)
    record(database, "app", f"{plain_registry.host}/shop/app:1", "1", BaseImage("labels", name, Digest.of(b"old")))
    keep_up(database, settings)
    assert len(queued(database)) == 2, "the newer and the former base: both have to be compared"
    for scan in queued(database):
        with database.session() as session:
            scans.cancel(session, scan.id)
    due_again(database)
    keep_up(database, settings)
    (event,) = events(database)
    assert event.headline.endswith("rebuild 1 image; what changes is not known")
    assert event.data["findings_problem"] == "base_not_scanned"
    assert queued(database) == [], "it is not tried for ever"


@pytest.mark.parametrize("configured", [False, True])
def test_a_host_is_asked_only_if_it_is_configured(
    database: Database, settings: Settings, httpserver: HTTPServer, configured: bool
) -> None:
    """An image can name any host as its base, also one inside the network."""
    host = f"127.0.0.1:{httpserver.port}"
    httpserver.expect_request("/v2/debian/manifests/12").respond_with_data("", 404)
    if configured:
        with database.session() as session:
            registries.add(session, host, secret_key(settings), insecure=True)
    base = BaseImage("labels", f"{host}/debian:12", Digest.of(b"old"))
    record(database, "app", "registry.example.com/shop/app:1", "1", base)
    keep_up(database, settings)
    assert bool(httpserver.log) is configured
    assert one(database).state == "unknown"
    assert one(database).watch.reason == ("not_found" if configured else "registry_not_configured")
    assert events(database) == []


def test_a_registry_that_limits_us_is_left_alone(
    database: Database, settings: Settings, httpserver: HTTPServer
) -> None:
    host = f"127.0.0.1:{httpserver.port}"
    httpserver.expect_request("/v2/a/manifests/1").respond_with_data("", 429, {"Retry-After": "7200"})
    with database.session() as session:
        registries.add(session, host, secret_key(settings), insecure=True)
    for n, repository in enumerate(("a", "b", "c")):
        base = BaseImage("labels", f"{host}/{repository}:1", Digest.of(b"old"))
        record(database, f"app{n}", f"registry.example.com/shop/app{n}:1", "1", base)
    keep_up(database, settings)
    assert [request.path for request, _ in httpserver.log] == ["/v2/a/manifests/1"], "the others wait as well"
    with database.read() as session:
        soonest = session.execute(sa.select(sa.func.min(watches.c.ask_epoch))).scalar_one()
        assert soonest - images.epoch(session) > timedelta(hours=1.9).total_seconds()


@pytest.mark.parametrize(
    ("head", "methods"),
    [
        (304, ["GET", "HEAD"]),  # the ETag is honoured: nothing is downloaded as long as the tag is as it was
        (200, ["GET", "HEAD"]),  # the digest is in the answer
        (405, ["GET", "HEAD", "GET"]),  # a registry without HEAD is asked for the manifest
    ],
)
def test_a_tag_that_has_not_moved_is_asked_for_by_head(
    database: Database, settings: Settings, httpserver: HTTPServer, head: int, methods: list[str]
) -> None:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": str(Digest.of(b"{}"))}
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []}).encode()
    digest = str(Digest.of(manifest))
    etags = []

    def answer(request: Request) -> Response:
        etags.append(request.headers.get("If-None-Match"))
        status = head if request.method == "HEAD" else 200
        given = {"Docker-Content-Digest": digest} if status == 200 else {}
        return Response(manifest if request.method == "GET" else b"", status, {"Content-Type": kind, **given})

    for method in ("GET", "HEAD"):
        httpserver.expect_request("/v2/base/manifests/1", method=method).respond_with_handler(answer)
    host = f"127.0.0.1:{httpserver.port}"
    with database.session() as session:
        registries.add(session, host, secret_key(settings), insecure=True)
    base = BaseImage("labels", f"{host}/base:1", Digest.of(b"old"))
    record(database, "app", "registry.example.com/shop/app:1", "1", base)
    keep_up(database, settings)
    assert one(database).watch.digest == digest, one(database).watch.message
    due_again(database)
    keep_up(database, settings)
    assert one(database).watch.digest == digest
    assert [request.method for request, _ in httpserver.log] == methods
    assert etags[1] == f'"{digest}"'


def test_a_worker_runs_it_and_a_setting_turns_it_off(database: Database, settings: Settings) -> None:
    base = BaseImage("labels", "registry.example.com/debian:12", Digest.of(b"old"))
    record(database, "app", "registry.example.com/shop/app:1", "1", base)
    off = replace(settings, bases_interval_hours=0)
    assert not worker.plan(off, database)
    made = Worker(settings, database, make_app(settings))
    while made.keep_up_once(maintenance.Upkeep(settings, database)):
        pass
    with database.read() as session:
        last = jobs.last(session, jobs.BASES, jobs.ANYWHERE)
    assert last is not None
    assert last.message == "tags asked for: 1; bases compared: 0, of which newer: 0"
