"""Worker processes that are started again when they die, as a supervisor would, and what must hold when all is over."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa

from scanner.errors import RemoteError
from scanner.model.scan import Lane
from scanner.store import scans
from scanner.store.schema import decision, scan
from scanner.store.session import Database
from tests.scanner.store import factories

PATIENCE = 60.0  # far more than anything needs here; a test that reaches it has failed


class Workers:
    """``count`` processes of ``slots`` slots each. Only processes that were started here are ever signalled."""

    def __init__(
        self,
        url: str,
        home: Path,
        *,
        count: int = 2,
        slots: int = 1,
        broker: str = "",
        sweep: float = 0.3,
        lease: float = 1.5,
    ) -> None:
        self._command = [
            sys.executable,
            "-m",
            "tests.chaos.worker",
            url,
            str(home),
            broker,
            str(slots),
            str(sweep),
            str(lease),
        ]
        self._log = (home / "workers.log").open("ab")
        self.processes = [self._start() for _ in range(count)]
        self.deaths = 0

    def _start(self) -> subprocess.Popen[bytes]:
        root = Path(__file__).parents[2]
        return subprocess.Popen(self._command, cwd=root, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL)

    def tend(self) -> None:
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                self.deaths += 1
                self.processes[number] = self._start()

    def until(self, reached: Callable[[], bool], *, tend: bool = True) -> None:
        """Raises AssertionError with the workers' last words when it takes far too long."""
        ends = time.monotonic() + PATIENCE
        while not reached():
            if time.monotonic() > ends:
                words = Path(self._log.name).read_text(errors="replace")[-3000:]
                raise AssertionError(f"not reached; the workers said:\n{words}")
            if tend:
                self.tend()
            time.sleep(0.1)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self._log.close()


def ask(database: Database, targets: Sequence[str], *, lane: Lane = Lane.PUSH) -> dict[str, str]:
    """Ask for scans; what was accepted is what must end."""
    with database.session() as session:
        return {t: scans.request(session, factories.request(t, lane=lane)).scan_id for t in targets}


def states(database: Database) -> list[str]:
    """Every scan's state; nothing while the database is away."""
    try:
        with database.read() as session:
            return [str(state) for (state,) in session.execute(sa.select(scan.c.state))]
    except RemoteError:
        return ["?"]


def over(database: Database) -> Callable[[], bool]:
    return lambda: all(state in ("done", "failed", "dead", "cancelled") for state in states(database))


def view(database: Database, scan_id: str) -> scans.ScanView:
    with database.read() as session:
        return scans.get(session, scan_id)


def attempts(database: Database, scan_id: str) -> tuple[scans.AttemptView, ...]:
    with database.read() as session:
        return scans.attempts(session, scan_id)


def judge(database: Database, accepted: Sequence[str]) -> None:
    """Nothing accepted is lost, nothing is decided twice, and every invariant holds (reliability I1 to I10)."""
    with database.read() as session:
        assert scans.invariants(session) == []
        ended = {row.id: row.state for row in session.execute(sa.select(scan.c.id, scan.c.state))}
        assert sorted(ended) == sorted(set(accepted))
        decided = [row[0] for row in session.execute(sa.select(decision.c.scan_id))]
    assert sorted(decided) == sorted(scan_id for scan_id, state in ended.items() if state == "done")
