"""The nightly look at what must always hold: recorded as a job, and said where the service says how it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from scanner import queue
from scanner.config import Secret, Settings
from scanner.model.scan import ScanState
from scanner.store import jobs, scans
from scanner.store.schema import scan
from scanner.store.session import Database
from scanner.worker import maintenance
from tests.databases import BACKENDS, migrated_url
from tests.scanner.store import factories
from tests.scanner.store.together import together
from web import create_app

KEY = Secret("a secret key for tests, long enough")


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(request.param, tmp_path))
    yield database
    database.engine.dispose()


def last(database: Database) -> jobs.JobView:
    with database.read() as session:
        found = jobs.last(session, jobs.INVARIANTS, jobs.ANYWHERE)
    assert found is not None
    return found


def spoil(database: Database) -> None:
    """A scan that failed and does not say why: I7."""
    with database.session() as session:
        ticket = scans.request(session, factories.request())
        session.execute(scan.update().where(scan.c.id == ticket.scan_id).values(state="failed", reason="", message=""))


def ready(database: Database, settings: Settings) -> dict[str, object]:
    own = replace(settings, secret_key=KEY)
    found: dict[str, object] = (
        create_app(own, database, queue.make_app(own)).test_client().get("/readyz").json["checks"]
    )
    return found


def test_it_is_looked_at_once_a_day(database: Database, settings: Settings) -> None:
    assert maintenance.check_invariants(database, "w") is True
    assert (last(database).state, last(database).message) == (ScanState.DONE, "all invariants hold")
    assert maintenance.check_invariants(database, "w") is False
    assert ready(database, settings)["invariants"] == {"ok": True, "reason": ""}


def test_one_that_does_not_hold_is_said(database: Database, settings: Settings) -> None:
    spoil(database)
    maintenance.check_invariants(database, "w")
    assert (last(database).state, last(database).reason) == (ScanState.FAILED, "invariant_broken")
    assert "I7 failed without a reason" in last(database).message
    assert ready(database, settings)["invariants"] == {"ok": False, "reason": "invariant_broken"}


def test_a_day_later_it_is_looked_at_again(database: Database) -> None:
    maintenance.check_invariants(database, "w")
    assert maintenance.check_invariants(database, "w", timedelta(0)) is True


def test_workers_that_look_together_look_once(database: Database) -> None:
    ends = together(4, lambda number: maintenance.check_invariants(database, f"w{number}"))
    assert sorted(map(str, ends)) == ["False", "False", "False", "True"]
    with database.read() as session:
        assert len(jobs.list_jobs(session, [jobs.INVARIANTS])) == 1


def test_a_database_that_was_never_migrated_is_told(settings: Settings, tmp_path: Path) -> None:
    own = replace(settings, secret_key=KEY, database_url=Secret(f"sqlite:///{tmp_path / 'new.db'}"))
    answer = create_app(own, celery=queue.make_app(own)).test_client().get("/readyz")
    assert answer.json["checks"]["invariants"]["ok"] is False
