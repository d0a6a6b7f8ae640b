"""Workers that are killed, frozen or poisoned (reliability K1 to K10, M2, T2), and databases that restart under them
(D1, D5).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from scanner.model.scan import Lane, ScanState
from scanner.store.session import Database
from tests.chaos import harness
from tests.chaos.worker import STAGES
from tests.databases import BACKENDS, Cluster, make_cluster, migrated_url


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return migrated_url(request.param, tmp_path)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.engine.dispose()


@pytest.fixture
def workers(database_url: str, tmp_path: Path) -> Iterator[harness.Workers]:
    workers = harness.Workers(database_url, tmp_path)
    yield workers
    workers.stop()


def test_killed_at_every_stage_and_once_more(database: Database, workers: harness.Workers) -> None:
    """K1 to K9. One worker dies at each stage, two of them inside and right after the transaction that records."""
    asked = harness.ask(database, [f"h.io/die-at-{stage}:1" for stage in STAGES])
    calm = harness.ask(database, [f"h.io/calm{n}:1" for n in range(4)])
    workers.until(harness.over(database))
    harness.judge(database, [*asked.values(), *calm.values()])
    for target, scan_id in {**asked, **calm}.items():
        ended = harness.view(database, scan_id)
        # Its result was committed before the worker died: there is nothing to do again.
        lost = 0 if "calm" in target or "after-commit" in target else 1
        assert (ended.state, ended.lost, ended.attempt) == (ScanState.DONE, lost, 0), target
    assert workers.deaths >= len(STAGES)


def test_without_a_sweeper_the_harness_reports_the_loss(database: Database, database_url: str, tmp_path: Path) -> None:
    """K14, the control: what these tests look at can tell that something was lost."""
    workers = harness.Workers(database_url, tmp_path, sweep=3600)
    try:
        asked = harness.ask(database, ["h.io/die-at-scan:1", "h.io/calm:1"])
        workers.until(
            lambda: harness.view(database, asked["h.io/calm:1"]).state is ScanState.DONE and workers.deaths > 0
        )
        time.sleep(6 * 1.5)  # leases
        assert sorted(harness.states(database)) == ["done", "running"]
    finally:
        workers.stop()


def test_poison_dies_alone(database: Database, workers: harness.Workers) -> None:
    """M2. Five workers, the last three in quarantine; then dead, with the reason, and nobody else harmed."""
    asked = harness.ask(database, ["h.io/poison:1", *(f"h.io/calm{n}:1" for n in range(6))])
    workers.until(harness.over(database))
    harness.judge(database, list(asked.values()))
    poison = harness.view(database, asked.pop("h.io/poison:1"))
    assert (poison.state, poison.reason, poison.lost) == (ScanState.DEAD, "worker_lost", 5)
    assert [a.reason for a in harness.attempts(database, poison.id)] == ["worker_lost"] * 5
    for scan_id in asked.values():
        calm = harness.view(database, scan_id)
        assert (calm.state, calm.lost) == (ScanState.DONE, 0)


@pytest.fixture
def patient_workers(database_url: str, tmp_path: Path) -> Iterator[harness.Workers]:
    """Workers whose leases last through the pauses of a loaded machine: a scan is lost by what the test does alone."""
    workers = harness.Workers(database_url, tmp_path, lease=6.0)
    yield workers
    workers.stop()


def test_a_frozen_worker_writes_nothing_when_it_thaws(
    database: Database, patient_workers: harness.Workers, tmp_path: Path
) -> None:
    """T2. Its lease ran out while it was stopped; the scan is another's, and so is the result.

    It may be stopped in the middle of a transaction: PostgreSQL then ends that, and with it its locks. SQLite cannot,
    so there it is stopped while nobody writes.
    """
    workers = patient_workers
    (tmp_path / "hold").touch()
    (scan_id,) = harness.ask(database, ["h.io/hold:1"]).values()
    workers.until(lambda: len(list(tmp_path.glob("held-*"))) == 1)
    (held,) = tmp_path.glob("held-*")
    frozen = next(p for p in workers.processes if str(p.pid) == held.name.removeprefix("held-"))
    with database.session() if database.is_sqlite else nullcontext():
        frozen.send_signal(signal.SIGSTOP)
    try:
        workers.until(lambda: len(list(tmp_path.glob("held-*"))) == 2)
        (tmp_path / "hold").unlink()
        workers.until(harness.over(database))
        before = harness.view(database, scan_id)
    finally:
        frozen.send_signal(signal.SIGCONT)
    after = harness.ask(database, [f"h.io/calm{n}:1" for n in range(6)])  # the thawed one takes part again
    workers.until(harness.over(database))
    assert harness.view(database, scan_id) == before
    assert (before.state, before.lost) == (ScanState.DONE, 1)
    assert frozen.poll() is None
    harness.judge(database, [scan_id, *after.values()])


def test_a_slot_is_kept_for_whoever_waits(database: Database, database_url: str, tmp_path: Path) -> None:
    """Background work fills every slot but one, so that a gate's scan is not behind it."""
    (tmp_path / "hold").touch()
    workers = harness.Workers(database_url, tmp_path, count=1, slots=2)
    try:
        slow = harness.ask(database, [f"h.io/hold{n}:1" for n in range(3)], lane=Lane.BACKGROUND)
        workers.until(lambda: "running" in harness.states(database))
        (urgent,) = harness.ask(database, ["h.io/urgent:1"], lane=Lane.GATE).values()
        workers.until(lambda: harness.view(database, urgent).state is ScanState.DONE)
        assert harness.states(database).count("running") == 1
        (tmp_path / "hold").unlink()
        workers.until(harness.over(database))
        harness.judge(database, [urgent, *slow.values()])
    finally:
        workers.stop()


@pytest.fixture
def server() -> Cluster:
    return make_cluster()


def test_postgres_restarts_under_them(server: Cluster, tmp_path: Path) -> None:
    """D1. The server is stopped at once, three times; whoever works waits for it, or another does the work again."""
    url = server.create("chaos")
    database = Database(url)
    database.upgrade()
    workers = harness.Workers(url, tmp_path, slots=2)
    try:
        asked = harness.ask(database, [f"h.io/calm{n}:1" for n in range(60)])
        for _ in range(3):
            done = harness.states(database).count("done")
            workers.until(lambda done=done: harness.states(database).count("done") > done)  # type: ignore[misc]
            server.stop("immediate")
            time.sleep(0.5)
            server.start()
        workers.until(harness.over(database))
        harness.judge(database, list(asked.values()))
        assert set(harness.states(database)) == {"done"}
        assert workers.deaths == 0
    finally:
        workers.stop()
        database.engine.dispose()
