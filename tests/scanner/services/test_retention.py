"""A pruning as a job: what it removed is in its row and in the audit log, whoever did which part of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner.config import Retention, Secret, Settings
from scanner.errors import LeaseLost, RefusedError
from scanner.model.actor import SERVICE
from scanner.model.audit import Action
from scanner.model.scan import Progress, ScanState
from scanner.services import retention
from scanner.store import audit, jobs, scans, schema
from scanner.store.session import Database, moment
from tests.actors import person
from tests.databases import BACKENDS, migrated_url
from tests.scanner.store import factories as make
from tests.scanner.store import recorded

KEY = Secret("a" * 40)
DAY = Retention.parse("1d")
SETTINGS = Settings(home=Path("/nonexistent"), retention_audit_log=DAY)


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(request.param, tmp_path), KEY)
    yield database
    database.engine.dispose()


@pytest.fixture
def later(database: Database) -> datetime:
    """A moment at which everything that is recorded now is old."""
    for number in range(4):
        packages = [make.package(number)]
        flaws = [make.vulnerability(number, packages[0])]
        recorded.record(database, make.report(f"i{number}", packages=packages, vulnerabilities=flaws))
    with database.session() as session:
        for number in range(3):
            audit.record(session, person("ada"), Action.SCAN_REQUEST, str(number))
        return moment(session) + timedelta(days=1000)


def claimed(database: Database, worker: str = "w") -> jobs.Job:
    with database.session() as session:
        retention.request(session, person("ada"))
        held = jobs.claim(session, worker, {jobs.RETENTION: None}, 600)
    assert held
    return held


def pruning(database: Database, job: jobs.Job, now: datetime, settings: Settings = SETTINGS) -> retention.Pruning:
    return retention.Pruning(settings, database, job, SERVICE, now=now, rest=lambda seconds: None)


def test_a_pruning_does_what_its_plan_said_and_is_audited(database: Database, later: datetime) -> None:
    with database.read() as session:
        planned = {line.table: line.rows for line in retention.plan(session, SETTINGS, later)}
        assert all(line.bytes > 0 for line in retention.plan(session, SETTINGS, later))
    job = claimed(database)
    removed = pruning(database, job, later).run()
    assert removed.pop("audit_log") == planned.pop("audit_log") + 1, "the request is an entry of its own"
    assert removed == planned
    with database.read() as session:
        assert audit.verify(session, KEY).broken is None
        assert scans.invariants(session) == []
        (entry,) = audit.list_entries(session, audit.Filter(action="retention.prune")).items
        storage = retention.storage(session, SETTINGS)
    assert (entry.object, entry.detail["removed"]["listing"]) == (job.id, 3)
    run = storage.last
    assert run
    assert (run.state, run.rows) == (ScanState.DONE, sum(entry.detail["removed"].values()))
    assert storage.measured_at is not None
    assert {size.table: size.rows for size in storage.tables}["listing"] == 1


def test_a_pruning_that_is_cut_off_is_gone_on_with(database: Database, later: datetime) -> None:
    """Its row says what was removed already, and the audit log tells of all of it once."""
    job, batches = claimed(database), 0

    def cut_off(progress: Progress) -> None:
        nonlocal batches
        batches += 1
        if batches == 12:
            raise LeaseLost("another worker has it")

    first = pruning(database, job, later)
    first.report = cut_off
    with pytest.raises(LeaseLost):
        first.run()
    with database.session() as session:
        jobs.hand_back(session, job)
        again = jobs.claim(session, "another", {jobs.RETENTION: None}, 600)
        assert again
        assert again.parameters["removed"], "the first had removed something"
        assert audit.list_entries(session, audit.Filter(action="retention.prune")).items == ()
    removed = pruning(database, again, later).run()
    assert removed["listing"] == 3
    assert removed["outbox"] == 4 + 3, "of verdicts, and of moves of the tag"
    with database.read() as session:
        (entry,) = audit.list_entries(session, audit.Filter(action="retention.prune")).items
        assert entry.detail["removed"] == removed
        assert audit.verify(session, KEY).broken is None


def test_one_that_lost_its_lease_removes_nothing_more(database: Database, later: datetime) -> None:
    job = claimed(database)
    with database.session() as session:
        jobs.cancel(session, job.id)
    with pytest.raises(LeaseLost):
        pruning(database, job, later).run()
    with database.read() as session:
        assert session.execute(sa.select(sa.func.count()).select_from(schema.listing)).scalar_one() == 4


def test_a_broken_audit_log_is_left_and_said(database: Database, later: datetime) -> None:
    with database.session() as session:
        session.execute(sa.text("DROP TRIGGER audit_log_immutable" + ("" if database.is_sqlite else " ON audit_log")))
        session.execute(sa.text("UPDATE audit_log SET actor = 'x' WHERE id = 2"))
    removed = pruning(database, claimed(database), later).run()
    assert "audit_log" not in removed
    assert removed["listing"] == 3, "the rest goes on"
    with database.read() as session:
        run = retention.storage(session, SETTINGS).last
    assert run
    assert run.state is ScanState.FAILED
    assert "entry 2" in run.message


def test_nothing_to_remove_is_no_entry_of_the_audit_log(database: Database) -> None:
    with database.read() as session:
        now = moment(session)
    assert pruning(database, claimed(database), now).run() == {}
    with database.read() as session:
        assert audit.list_entries(session, audit.Filter(action="retention.prune")).items == ()


def test_each_transaction_is_followed_by_a_pause(database: Database, later: datetime) -> None:
    """Half of the time, or more, the database is everybody else's."""
    pauses: list[float] = []
    own = retention.Pruning(SETTINGS, database, claimed(database), SERVICE, now=later, rest=pauses.append)
    own.run()
    assert len(pauses) > 10
    assert min(pauses) > 0


def test_who_is_confined_to_projects_prunes_nothing(database: Database) -> None:
    with database.session() as session, pytest.raises(RefusedError):
        retention.request(session, person("bo", projects=frozenset({"shop"})))


def test_it_is_due_once_a_day(database: Database) -> None:
    with database.session() as session:
        assert retention.is_due(session, jobs.ANYWHERE)
        jobs.request(session, jobs.RETENTION, jobs.ANYWHERE, "schedule")
        assert not retention.is_due(session, jobs.ANYWHERE), "one is waiting"
        held = jobs.claim(session, "w", {jobs.RETENTION: None}, 60)
        assert held
        jobs.finish(session, held)
        assert not retention.is_due(session, jobs.ANYWHERE), "it ran today"
        assert retention.is_due(session, "another machine's files")
        yesterday = moment(session) - timedelta(hours=25)
        session.execute(schema.job.update().values(created_at=yesterday))
        assert retention.is_due(session, jobs.ANYWHERE)


def test_what_is_kept_for_ever_is_in_no_plan(database: Database, later: datetime) -> None:
    settings = Settings(home=Path("/nonexistent"), retention_outbox=Retention())
    with database.read() as session:
        planned = {line.table for line in retention.plan(session, settings, later)}
    assert "listing" in planned
    assert not planned & {"audit_log", "outbox"}
    pruning(database, claimed(database), later, settings).run()
    with database.read() as session:
        assert session.execute(sa.select(sa.func.count()).select_from(schema.outbox)).scalar_one() > 0


def test_files_are_counted_once_however_often_they_are_linked(database: Database, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    deep = settings.blobs_dir / "sha256" / "ab"
    deep.mkdir(parents=True)
    (deep / "blob").write_bytes(b"x" * 100_000)
    with database.read() as session:
        alone = retention.storage(session, settings).directories["Layers"]
        (settings.blobs_dir / "again").hardlink_to(deep / "blob")
        (settings.blobs_dir / "gone").symlink_to("nowhere")
        linked = retention.storage(session, settings).directories["Layers"]
    assert alone >= 100_000
    assert linked - alone < 10_000
