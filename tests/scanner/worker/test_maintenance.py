"""Newer advisories reach every image of a fleet they concern, and no other, without an image being looked at."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from pytest_httpserver import HTTPServer

from scanner import catalog, queue
from scanner.advisories import database as advisories
from scanner.advisories import sources, trivydb
from scanner.advisories.trivydb import Advisory
from scanner.config import Secret, Settings
from scanner.demo import samples
from scanner.errors import LeaseLost
from scanner.model.finding import Component, Incomplete, Severity
from scanner.model.scan import Progress, ScanReport, ScanState, Stage
from scanner.queue import make_app
from scanner.services import decisions
from scanner.store import accounts, gate, images, jobs, registries
from scanner.store.schema import (
    component,
    decision,
    finding,
    image,
    listing,
    outbox,
    rests_on,
    scan,
    verdict,
    vulnerability,
)
from scanner.store.session import Database
from scanner.worker import maintenance
from scanner.worker.worker import Worker, register
from tests import fleet
from tests.databases import BACKENDS, migrated_url
from tests.servers import spawn, wait_for

KEY = Secret("k" * 40)
COMMON = [fleet.debian(f"libcommon{n}") for n in range(12)]
RARE = fleet.debian("librare", "2.0-1")
ADVISORY = Advisory("CVE-2026-77777", "debian 12", "librare", Severity.CRITICAL, "made up", fixed="2.0-2")
OF_PYTHON = Advisory(
    "CVE-2026-22222", "pip::GitHub Security Advisory Pip", "other", Severity.LOW, "made up", "2", ("<2",)
)
EARLIER = Advisory("CVE-2026-11111", "debian 12", "libcommon3", Severity.LOW, "made up", fixed="1.0-2")


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(request.param, tmp_path))
    yield database
    database.engine.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", rematch_per_second=0, secret_key=KEY)


def publish(settings: Settings, base: Path, *more: Advisory, age: float = 0) -> None:
    """A new database with these advisories besides the usual ones."""
    built = datetime.now(UTC) - timedelta(hours=age)
    trivydb.build((*samples.ADVISORIES, EARLIER, OF_PYTHON, *more), base, updated_at=built)
    advisories.import_file(settings, base)


def fill(
    database: Database, settings: Settings, base: Path, count: int, rare: int, host: str = "r.example.com"
) -> None:
    """``count`` images that share packages; the first ``rare`` of them have one that no other has."""
    own = [fleet.python(f"app{n % 40}") for n in range(count)]
    answers = fleet.look_up(settings, [*COMMON, RARE, *own], base / "look-up")
    for n in range(count):
        components: Sequence[Component] = [*COMMON, own[n], *([RARE] if n < rare else [])]
        fleet.record(database, fleet.evidence(f"shop/app{n}", components, answers, settings, host))


def keep_up(settings: Settings, database: Database) -> Worker:
    """All that is due, as a worker does it."""
    worker = Worker(settings, database, make_app(settings))
    while worker.keep_up_once(maintenance.Upkeep(settings, database)):
        pass
    return worker


def states(database: Database) -> dict[str, tuple[str, str]]:
    """Of each repository, the verdict listed and the evidence it rests on."""
    with database.read() as session:
        columns = (listing.c.repository, listing.c.verdict, listing.c.report_id)
        return {row[0].rpartition("/")[2]: (row[1], row[2]) for row in session.execute(sa.select(*columns))}


def last_job(database: Database) -> jobs.JobView:
    with database.read() as session:
        return jobs.list_jobs(session, [jobs.REMATCH])[0]


def test_one_package_of_twelve_in_three_hundred(
    database: Database, settings: Settings, tmp_path: Path, httpserver: HTTPServer
) -> None:
    host = f"127.0.0.1:{httpserver.port}"
    with database.session() as session:
        registries.add(session, host, KEY, insecure=True)
        token = accounts.create_token(session, "ci", ("gate",), KEY)[1]
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 300, 12, host)
    before = states(database)
    assert {v for v, _ in before.values()} == {"allow"}
    keep_up(settings, database)  # the evidence is of the advisories in force: there is nothing to do
    with database.read() as session:
        assert jobs.list_jobs(session, [jobs.REMATCH]) == ()

    with database.read() as session:
        watched = session.execute(
            sa.select(verdict.c.digest, verdict.c.document).where(verdict.c.repository == f"{host}/shop/app5")
        ).one()
    answers, over = [], threading.Event()

    def ask() -> None:
        asking = gate.Gate(database)
        hashed = accounts.hash_token(token.reveal(), KEY)
        while not over.is_set():
            asked = asking.ask(hashed, watched.digest, f"{host}/shop/app5", "")
            assert asked is not None
            answers.append(asked.row.document if asked.row else None)

    # What fails meanwhile must not leave it behind: it would ask for ever, and Python would wait for it at its end.
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    try:
        publish(settings, tmp_path / "two", ADVISORY)
        keep_up(settings, database)
    finally:
        over.set()
        asker.join(60)

    after = states(database)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"app{n}" for n in range(12)}
    assert {after[name][0] for name in changed} == {"deny"}
    done = last_job(database)
    assert (done.state, done.lost, done.attempt) == (ScanState.DONE, 0, 0), done.message
    assert "12 images decided again, 12 new findings" in done.message
    # The gate answered throughout, from the old decision and then from the new one, and from nothing else.
    told = list(dict.fromkeys(answers))
    assert told[0] == watched.document
    assert len(told) <= 2
    assert all(orjson.loads(document)["verdict"] in ("allow", "deny") for document in told)
    assert httpserver.log == []
    with database.read() as session:
        rows = session.execute(sa.select(outbox.c.body).where(outbox.c.kind == "vulnerability.new")).scalars().all()
        assert {row["data"]["vulnerability"] for row in rows} == {"CVE-2026-77777"}
        assert len(rows) == 12
        assert session.execute(sa.select(sa.func.count()).select_from(scan)).scalar_one() == 300
        bases = session.execute(sa.select(rests_on.c.basis).distinct()).scalars().all()
        assert len(bases) == 1
        assert session.execute(sa.select(sa.func.count()).select_from(decision)).scalar_one() == 312
    keep_up(settings, database)
    with database.read() as session:
        assert len(jobs.list_jobs(session, [jobs.REMATCH])) == 1


def test_an_advisory_that_is_taken_back_releases(database: Database, settings: Settings, tmp_path: Path) -> None:
    publish(settings, tmp_path / "one", ADVISORY, age=1)
    fill(database, settings, tmp_path, 4, 2)
    assert [states(database)[f"app{n}"][0] for n in range(4)] == ["deny", "deny", "allow", "allow"]
    publish(settings, tmp_path / "two")
    keep_up(settings, database)
    assert {v for v, _ in states(database).values()} == {"allow"}


def linked(database: Database) -> set[tuple[str, str, str, bool]]:
    """What lists and searches find: (image, package, vulnerability, fixable)."""
    with database.read() as session:
        query = (
            sa.select(image.c.digest, component.c.purl, vulnerability.c.name, finding.c.fixable)
            .join(finding, finding.c.image_id == image.c.id)
            .join(component, component.c.id == finding.c.component_id)
            .join(vulnerability, vulnerability.c.id == finding.c.vulnerability_id)
        )
        return {(row[0], row[1], row[2], bool(row[3])) for row in session.execute(query)}


def test_what_is_searched_is_what_the_evidence_says(database: Database, settings: Settings, tmp_path: Path) -> None:
    gone = Advisory("CVE-2026-22222", "debian 12", "libcommon5", Severity.LOW, "made up", fixed="1.0-2")
    unfixed = replace(ADVISORY, fixed="")
    publish(settings, tmp_path / "one", gone, unfixed, age=1)
    fill(database, settings, tmp_path, 3, 1)
    publish(settings, tmp_path / "two", ADVISORY)  # one is taken back, of another there is a fix now
    keep_up(settings, database)
    with database.read() as session:
        reports = session.execute(sa.select(listing.c.report_id)).scalars().all()
        found = [images.evidence(session, report_id) for report_id in reports]
    said = {
        (r.images[0].image.digest, v.purl, v.id, v.fixable)
        for r in found
        for e in r.images[0].engines
        for v in e.vulnerabilities
    }
    assert linked(database) == said
    assert {(name, fixable) for _, _, name, fixable in said} == {("CVE-2026-77777", True), ("CVE-2026-11111", True)}


def test_what_is_unchanged_is_as_fresh_as_what_confirmed_it(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    publish(settings, tmp_path / "one", age=24 * 8)  # older than the default policy allows
    fill(database, settings, tmp_path, 2, 1)
    assert {v for v, _ in states(database).values()} == {"deny"}
    publish(settings, tmp_path / "two", ADVISORY)
    keep_up(settings, database)
    with database.session() as session:
        row = session.execute(
            sa.select(listing.c.report_id).where(listing.c.repository == "r.example.com/shop/app1")
        ).one()
        found = images.evidence(session, row.report_id)
        made = decisions.decide_all(session, found, catalog.known_names(), catalog.remedies())[0].decision
    assert made.verdict == "allow", made.reasons
    assert made.valid_until is not None
    assert made.valid_until > datetime.now(UTC) + timedelta(days=6)


def test_a_feed_changes_only_what_it_speaks_of(database: Database, settings: Settings, tmp_path: Path) -> None:
    publish(settings, tmp_path / "one", ADVISORY, age=1)
    fill(database, settings, tmp_path, 4, 1)
    before = states(database)
    kev = tmp_path / "kev.csv"
    kev.write_text(f"cveID,dateAdded\nCVE-2026-77777,{datetime.now(UTC):%Y-%m-%d}\n")
    sources.import_file(settings, kev)
    keep_up(settings, database)
    # Everything has the other CVE, of which it is now known that it is not exploited; app0 has the one that is.
    assert all(states(database)[name] != before[name] for name in before)
    newer = kev.with_name("newer.csv")
    newer.write_text(kev.read_text() + f"CVE-2026-55555,{datetime.now(UTC):%Y-%m-%d}\n")
    between = states(database)
    sources.import_file(settings, newer)
    keep_up(settings, database)
    assert states(database) == between


def test_evidence_from_before_there_were_links(database: Database, settings: Settings, tmp_path: Path) -> None:
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 3, 1)
    with database.session() as session:
        session.execute(rests_on.delete())
        session.execute(sa.text("DELETE FROM listing_package"))
    publish(settings, tmp_path / "two", ADVISORY)
    keep_up(settings, database)
    assert states(database)["app0"][0] == "deny"
    assert "3 older records" in last_job(database).message


def test_a_worker_whose_advisories_are_older_leaves_the_fleet_alone(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    other = replace(settings, home=tmp_path / "other")
    publish(other, tmp_path / "old", age=48)
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 2, 1)
    publish(settings, tmp_path / "two", ADVISORY)
    keep_up(settings, database)
    after = states(database)
    keep_up(other, database)
    assert states(database) == after
    with database.read() as session:
        assert len(jobs.list_jobs(session, [jobs.REMATCH])) == 1


def test_a_cancelled_one_keeps_what_it_had_done(database: Database, settings: Settings, tmp_path: Path) -> None:
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 6, 6)
    publish(settings, tmp_path / "two", ADVISORY)
    own = maintenance.Upkeep(settings, database)
    can = maintenance.plan(own)
    with database.session() as session:
        job = jobs.claim(session, "w", can, 60)
    assert job is not None

    def cancel_at_the_third(progress: Progress) -> None:
        if (progress.stage, progress.done) == (Stage.EVALUATE, 2):
            with database.session() as session:
                assert jobs.cancel(session, job.id)

    with pytest.raises(LeaseLost):
        maintenance.run(job, own, cancel_at_the_third)
    assert sorted(v for v, _ in states(database).values()) == ["allow"] * 4 + ["deny"] * 2
    assert last_job(database).state is ScanState.CANCELLED
    keep_up(settings, database)  # what a person stopped is not begun again by itself
    assert sorted(v for v, _ in states(database).values()) == ["allow"] * 4 + ["deny"] * 2


def kill_when(reached: Callable[[], bool], command: Sequence[str], log: Path) -> None:
    """Start a process of ours, and kill it the moment that something is so."""
    process = spawn([sys.executable, "-m", *command], log)
    wait_for(lambda: reached() or process.poll() is not None, "it", log, 60)
    assert process.poll() is None, log.read_text()
    process.kill()
    process.wait(60)


def test_killed_in_the_middle_somebody_goes_on(database: Database, settings: Settings, tmp_path: Path) -> None:
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 20, 8)
    before = states(database)
    publish(settings, tmp_path / "two", ADVISORY)

    def denied() -> int:
        return sum(v == "deny" for v, _ in states(database).values())

    url = database.engine.url.render_as_string(hide_password=False)
    kill_when(lambda: denied() >= 2, ["tests.chaos.maintenance", url, str(settings.home), "4"], tmp_path / "log")
    assert 2 <= denied() < 8
    with database.read() as session:
        assert jobs.list_jobs(session, [jobs.REMATCH])[0].state is ScanState.RUNNING
    wait_for(lambda: _swept(database), "the lease", tmp_path / "log", 30)
    keep_up(settings, database)
    after = states(database)
    assert {name for name in after if after[name] != before[name]} == {f"app{n}" for n in range(8)}
    assert (last_job(database).state, last_job(database).lost) == (ScanState.DONE, 1)
    with database.read() as session:
        # Nobody was decided twice over it.
        assert session.execute(sa.select(sa.func.count()).select_from(decision)).scalar_one() == 28


def _swept(database: Database) -> bool:
    with database.session() as session:
        return jobs.sweep(session) > 0


def test_beat_has_somebody_look_at_the_clock(database: Database, settings: Settings) -> None:
    celery = make_app(settings)
    worker = Worker(settings, database, celery)
    register(celery, worker)
    celery.tasks[queue.KEEP_UP]()
    assert worker.due.is_set()


def uncovered(settings: Settings) -> ScanReport:
    """What a scan of a Debian 13 leaves while the advisories know nothing of it."""
    status = advisories.status(settings)
    engine = catalog.engines()["trivy"]
    answers = fleet.Answers(engine.version(settings), engine.binary(settings), status, {})
    found = fleet.evidence("shop/new", COMMON, answers, settings)
    (image,) = found.images
    (said,) = image.engines
    coverage = replace(said.coverage, os_version="13.1", without_advisories=("debian",))
    gap = Incomplete("no_advisories", "nothing about debian 13.1")
    return replace(found, images=(replace(image, engines=(replace(said, coverage=coverage, incomplete=(gap,)),)),))


def test_a_release_that_newer_advisories_cover_is_decided_anew(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    publish(settings, tmp_path / "one", age=2)
    fleet.record(database, uncovered(settings))
    assert states(database)["new"][0] == "deny"
    publish(settings, tmp_path / "two", Advisory("CVE-2026-1", "debian 13", "thing", Severity.LOW, fixed="1"), age=1)
    keep_up(settings, database)
    verdict_, report_id = states(database)["new"]
    assert verdict_ == "allow"
    with database.read() as session:
        (said,) = images.evidence(session, report_id).images[0].engines
    assert (said.incomplete, said.coverage.without_advisories) == ((), ())


def test_a_release_that_newer_advisories_have_lost_is_scanned_again(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    """Answering for it without advisories would release every image of it."""
    publish(settings, tmp_path / "one", age=2)
    fill(database, settings, tmp_path, 1, 0)
    trivydb.build((OF_PYTHON,), tmp_path / "two")
    advisories.import_file(settings, tmp_path / "two")
    keep_up(settings, database)
    assert "1 need a scan" in last_job(database).message
    assert states(database)["app0"][0] == "allow", "what was found stands until then"


def test_what_both_engines_scanned_is_scanned_again_by_both(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    publish(settings, tmp_path / "one", age=2)
    found = uncovered(settings)
    (picture,) = found.images
    theirs = replace(picture.engines[0], engine="clair", components=())
    fleet.record(database, replace(found, images=(replace(picture, engines=(*picture.engines, theirs)),)))
    publish(settings, tmp_path / "two", ADVISORY, age=1)
    keep_up(settings, database)
    with database.read() as session:
        asked = set(session.execute(sa.select(scan.c.engine).where(scan.c.source == "upkeep")).scalars())
    assert asked == {"both"}
