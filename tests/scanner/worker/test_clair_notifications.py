"""A notification of Clair's reaches the images it names, and no other; no registry is asked, and nothing is
acknowledged too early.
"""

from __future__ import annotations

import json
import queue as queues
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.errors import EngineError
from scanner.model.finding import NO_SYSTEM, Coverage, Incomplete
from scanner.model.scan import Lane, ScanReport, ScanRequest, ScanState
from scanner.policy.evaluate import evidence_digest
from scanner.queue import make_app
from scanner.scanning.pipeline import local_services, run
from scanner.services import decisions
from scanner.store import images, jobs, listings, scans
from scanner.store.schema import outbox
from scanner.store.session import Database
from scanner.worker import maintenance
from scanner.worker.clair_notifications import carry_over_gaps
from tests.clair import Clair, advisory
from tests.databases import BACKENDS, migrated_url
from tests.reports_factory import engine, image_report, report, vulnerability
from web import create_app

KEY = Secret("k" * 40)
NOTIFICATION = "d9c8f3f0-4f0e-4d8a-8f53-0d6a3a1c5e11"
NAME = "registry.example.com/shop/app"


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(request.param, tmp_path))
    yield database
    database.engine.dispose()


def record(database: Database, found: ScanReport, engine: str = "clair") -> str:
    """As a worker does."""
    with database.session() as session:
        scans.request(session, ScanRequest(f"{NAME}:1.0", engine=engine, lane=Lane.PUSH))
        claim = scans.claim(session, "tests", ("push",), 60)
    assert claim is not None
    found = replace(found, reference=f"{NAME}:1.0", repository=NAME, tag="1.0")
    with database.session() as session:
        scans.settle(session, claim, found.digest, "x")
        made = decisions.decide_all(session, found, catalog.known_names(), catalog.remedies())
        images.record(session, claim, found, evidence_digest(found), made)
    return str(found.digest)


def deal_with(settings: Settings, database: Database, notification: str = NOTIFICATION) -> jobs.JobView:
    """What a worker does with the job."""
    with database.session() as session:
        identifier = jobs.request(session, jobs.CLAIR, notification, "clair", {"notification": notification})
        job = jobs.claim(session, "tests", {jobs.CLAIR: None}, 60)
    assert job is not None
    maintenance.run(job, maintenance.Upkeep(settings, database), lambda progress: None)
    with database.read() as session:
        return jobs.get(session, identifier)


def newest(database: Database, digest: str) -> ScanReport:
    with database.read() as session:
        return listings.newest_report(session, digest, None)[1]


def queued(database: Database) -> list[tuple[str, str, str]]:
    with database.read() as session:
        page = scans.list_scans(session, None, states=[ScanState.QUEUED])
    return [(s.request.target, s.request.engine, s.request.lane) for s in page.items]


def scanned(settings: Settings, layout: Path) -> ScanReport:
    with local_services(settings) as services:
        return run(ScanRequest(f"oci:{layout}", engine="clair"), services, lambda progress: None)


OLD = advisory("CVE-2026-90001", "libssl3", "Critical", "3.0.13-1~deb12u1")
NEW = advisory("CVE-2026-90009", "curl", "Critical", "9.0")


@pytest.mark.real_clock
def test_what_clair_reports_is_matched_anew_without_a_layer(
    clair: Clair, tmp_path: Path, database: Database, sample_layouts: Path, httpserver: HTTPServer
) -> None:
    """A real Clair but for its notifier, which looks for news once in a minute at most."""

    def forward(request: Request) -> Response:
        headers = {"Authorization": request.headers["Authorization"], "Content-Type": request.content_type or ""}
        url = f"{clair.url}{request.full_path.rstrip('?')}"
        answer = httpx.request(request.method, url, content=request.data, headers=headers, timeout=60, trust_env=False)
        return Response(answer.content, answer.status_code, {"ETag": answer.headers.get("ETag", "")})

    httpserver.expect_request(re.compile("/(indexer|matcher)/.*")).respond_with_handler(forward)
    settings = replace(
        clair.settings(home=tmp_path / "home", secret_key=KEY), clair_url=httpserver.url_for("").rstrip("/")
    )
    clair.load([OLD])
    found = scanned(settings, sample_layouts / "shop/vulnerable")
    digest = record(database, found)
    clair.load([OLD, NEW])
    fake(httpserver, [page(digest)])
    fetched = clair.log.count("layer fetch start")
    job = deal_with(settings, database)
    assert (job.state, job.message) == (ScanState.DONE, "1 image renewed, 0 scans queued")
    now = newest(database, digest)
    assert {v.id for v in now.images[0].engines[0].vulnerabilities} == {"CVE-2026-90001", "CVE-2026-90009"}
    assert now.images[0].checks == found.images[0].checks
    assert clair.log.count("layer fetch start") == fetched
    assert queued(database) == []
    with database.read() as session:
        (new,) = session.execute(sa.select(outbox.c.body).where(outbox.c.kind == "vulnerability.new")).scalars()
    assert new["data"]["vulnerability"] == "CVE-2026-90009"
    assert acknowledged(httpserver)


@pytest.mark.long
@pytest.mark.real_clock
def test_a_real_notification_from_end_to_end(
    tmp_path: Path, database: Database, sample_layouts: Path, httpserver: HTTPServer
) -> None:
    told: queues.Queue[Request] = queues.Queue()
    httpserver.expect_request("/webhooks/clair").respond_with_handler(lambda r: told.put(r) or Response(status=200))
    own = Clair(tmp_path / "clair", webhook=httpserver.url_for("/webhooks/clair")).start()
    try:
        settings = own.settings(home=tmp_path / "home", secret_key=KEY, rate_limits=False)
        own.load([OLD])
        digest = record(database, scanned(settings, sample_layouts / "shop/vulnerable"))
        own.load([OLD, NEW])
        delivery = told.get(timeout=240)
        client = create_app(settings, database, make_app(settings)).test_client()
        answer = client.post(
            "/webhooks/clair",
            data=delivery.data,
            headers={"Authorization": delivery.headers["Authorization"]},
            content_type=delivery.content_type,
        )
        assert answer.status_code == 200
        identifier = json.loads(delivery.data)["notification_id"]
        assert deal_with(settings, database, identifier).message == "1 image renewed, 0 scans queued"
        found = newest(database, digest).images[0].engines[0].vulnerabilities
        assert {v.id for v in found} == {"CVE-2026-90001", "CVE-2026-90009"}
        assert re.search(f'"method":"DELETE","request_uri":"[^"]*{identifier}"', own.log), "acknowledged"
    finally:
        own.stop()


# Answers that a broken Clair could give


def fake(server: HTTPServer, pages: list[Any], status: int = 200) -> Settings:
    path = f"/notifier/api/v1/notification/{NOTIFICATION}"
    for page in pages:
        server.expect_oneshot_request(path, method="GET").respond_with_json(page, status=status)
    server.expect_request(path, method="DELETE").respond_with_data(status=200)
    return Settings(clair_url=server.url_for("").rstrip("/"), secret_key=KEY)


def page(*digests: Any, following: str = "") -> dict[str, Any]:
    return {"page": {"size": 1, "next": following}, "notifications": [{"manifest": digest} for digest in digests]}


def acknowledged(server: HTTPServer) -> bool:
    return any(request.method == "DELETE" for request, _ in server.log)


def stored(database: Database, **more: Any) -> str:
    theirs = replace(engine([vulnerability()], **more), engine="clair", version="v4")
    return record(database, report(image_report([theirs])))


def test_an_image_that_is_not_ours_is_nothing(httpserver: HTTPServer, database: Database) -> None:
    stored(database)
    settings = fake(httpserver, [page("sha256:" + "0" * 64, following=NOTIFICATION), page("sha256:" + "1" * 64)])
    assert deal_with(settings, database).message == "0 images renewed, 0 scans queued"
    assert acknowledged(httpserver)


def test_an_image_that_clair_has_forgotten_is_scanned_in_the_background(
    httpserver: HTTPServer, database: Database
) -> None:
    digest = stored(database)
    settings = fake(httpserver, [page(digest)])
    httpserver.expect_request("/indexer/api/v1/index_state").respond_with_json({"state": "x"})
    httpserver.expect_request(f"/matcher/api/v1/vulnerability_report/{digest}").respond_with_data(status=404)
    assert deal_with(settings, database).message == "0 images renewed, 1 scan queued"
    assert queued(database) == [(f"{NAME}:1.0@{digest}", "clair", "background")]
    assert acknowledged(httpserver)


@pytest.mark.parametrize(
    "answer",
    [{}, {"page": {}, "notifications": "x"}, page(7), page(""), page("no digest"), {"page": [], "notifications": []}],
)
def test_what_is_no_notification_is_not_acknowledged(httpserver: HTTPServer, database: Database, answer: Any) -> None:
    stored(database)
    settings = fake(httpserver, [answer])
    with pytest.raises(EngineError) as caught:
        deal_with(settings, database)
    assert caught.value.reason == "scanner_output_invalid"
    assert not acknowledged(httpserver)


def test_a_notification_without_an_end_is_not_followed_for_ever(
    httpserver: HTTPServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanner.worker.clair_notifications._MAX_PAGES", 3)
    settings = fake(httpserver, [page(following=NOTIFICATION) for _ in range(4)])
    with pytest.raises(EngineError, match="too many pages"):
        deal_with(settings, database)
    assert not acknowledged(httpserver)


def test_what_our_own_reading_said_stands_and_what_clair_lacked_is_asked_anew() -> None:
    doubts = (Incomplete("no_advisories"), Incomplete("release_disagrees", "why"))
    assert carry_over_gaps(engine(incomplete=doubts), engine()).incomplete == doubts[1:]
    static = replace(engine(), coverage=Coverage("none", "", None, 1))
    again = replace(engine(incomplete=[NO_SYSTEM]), coverage=Coverage("", "", None, 1))
    found = carry_over_gaps(static, again)
    assert (found.incomplete, found.coverage.os_family) == ((), "none")


def test_nothing_is_acknowledged_when_an_image_could_not_be_asked_about(
    httpserver: HTTPServer, database: Database
) -> None:
    digest = stored(database)
    settings = fake(httpserver, [page(digest)])
    httpserver.expect_request("/indexer/api/v1/index_state").respond_with_json({"state": "x"})
    httpserver.expect_request(f"/matcher/api/v1/vulnerability_report/{digest}").respond_with_data(status=202)
    with pytest.raises(EngineError, match="not loaded"):
        deal_with(settings, database)
    assert not acknowledged(httpserver)
    assert newest(database, digest).images[0].engines[0].vulnerabilities, "what was known stands"
