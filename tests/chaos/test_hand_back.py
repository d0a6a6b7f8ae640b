"""Workers that are told to stop (a deployment) or killed: what they held is another's at once, and nothing of theirs
stays behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.model.scan import Lane, ScanState
from scanner.store.session import Database
from tests.chaos import harness
from tests.databases import BACKENDS, migrated_url

TAKEN_OVER = 2.0
SLACK = 3.0  # two processors that other tests use too


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
    workers = harness.Workers(database_url, tmp_path, count=3)  # two stay while one is stopped and started again
    yield workers
    workers.stop()


def holder(workers: harness.Workers, tmp_path: Path, kind: str) -> subprocess.Popen[bytes]:
    """The process that holds the scan: it said so in a file."""

    def alive() -> list[subprocess.Popen[bytes]]:
        return [p for p in workers.processes if p.poll() is None and (tmp_path / f"{kind}-{p.pid}").exists()]

    workers.until(lambda: len(alive()) == 1)
    return alive()[0]


def is_gone(pid: int) -> bool:
    """Also one that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("kind", ["held", "engine"])
def test_two_deployments_hand_the_scan_over(
    database: Database, workers: harness.Workers, tmp_path: Path, kind: str
) -> None:
    """No time is lost until a lease ends, and a scan that outlived two deployments has killed nobody."""
    (tmp_path / "hold").touch()
    target = "h.io/hold:1" if kind == "held" else "h.io/engine:1"
    (scan_id,) = harness.ask(database, [target]).values()
    for deployment in (1, 2):
        stopped = holder(workers, tmp_path, kind)
        pids = [int(pid) for pid in (tmp_path / f"{kind}-{stopped.pid}").read_text().split()]
        began = time.monotonic()
        stopped.send_signal(signal.SIGTERM)
        workers.until(lambda n=deployment: len(harness.attempts(database, scan_id)) == n + 1)  # type: ignore[misc]
        assert time.monotonic() - began < TAKEN_OVER + SLACK
        assert stopped.wait(harness.PATIENCE) == 0
        assert [pid for pid in pids if not is_gone(pid)] == [], "the engine's whole group"
        (tmp_path / f"{kind}-{stopped.pid}").unlink()
        now = harness.view(database, scan_id)
        assert (now.lost, now.attempt, now.request.lane) == (0, 0, Lane.PUSH)
    if kind == "engine":  # which ends only when it is told to
        last = holder(workers, tmp_path, kind)
        os.kill(int((tmp_path / f"{kind}-{last.pid}").read_text().split()[0]), signal.SIGKILL)
    (tmp_path / "hold").unlink()
    workers.until(harness.over(database))
    ended = harness.view(database, scan_id)
    assert (ended.state, ended.lost, ended.attempt) == (ScanState.DONE, 0, 0)
    assert [a.reason for a in harness.attempts(database, scan_id)] == ["handed_back", "handed_back", ""]
    harness.judge(database, [scan_id])


def test_a_deployment_in_the_middle_of_many(database: Database, workers: harness.Workers) -> None:
    """Every worker is told to stop, again and again, while scans are claimed, worked on and recorded."""
    asked = harness.ask(database, [f"h.io/calm{n}:1" for n in range(60)])
    for _ in range(4):
        done = harness.states(database).count("done")
        workers.until(lambda done=done: harness.states(database).count("done") > done + 3)  # type: ignore[misc]
        for process in workers.processes:
            process.send_signal(signal.SIGTERM)
    workers.until(harness.over(database))
    harness.judge(database, list(asked.values()))
    for scan_id in asked.values():
        ended = harness.view(database, scan_id)
        assert (ended.state, ended.lost, ended.attempt) == (ScanState.DONE, 0, 0)


def test_the_work_directory_of_a_killed_worker_is_removed(
    database: Database, workers: harness.Workers, tmp_path: Path
) -> None:
    """I9. A layout is hard links to blobs: while it stays, removing a blob frees nothing."""
    (scan_id,) = harness.ask(database, ["h.io/die-in-its-directory:1"]).values()
    workers.until(harness.over(database))
    workers.until(lambda: not list((tmp_path / "work").iterdir()))
    assert (tmp_path / "blob").stat().st_nlink == 1
    assert harness.view(database, scan_id).state is ScanState.DONE
    assert workers.deaths == 1
