"""A worker process as production runs it, with a runner that scans nothing and dies where its target's name says.

``h.io/die-at-<stage>:1`` kills the process at that stage, once; ``h.io/poison:1`` whenever it is worked on;
``h.io/hold:1`` waits at ``scan`` while the file ``hold`` is there. ``h.io/engine:1`` runs a program with a child of
its own for as long, as an engine; ``h.io/die-in-its-directory:1`` dies there with a work directory. The fault is the
test's; lease, heartbeat, sweeper, slots and recording are the product's.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.config import Secret, Settings
from scanner.engines import _process
from scanner.errors import EngineError, LeaseLost
from scanner.model.scan import Progress, Stage
from scanner.queue import make_app
from scanner.registry.work_directories import work_directory
from scanner.store import images, scans
from scanner.store.session import Database
from scanner.worker.supervisor import attend
from scanner.worker.worker import Worker
from tests.scanner.store import factories

if TYPE_CHECKING:
    from scanner.scanning.pipeline import Services
    from scanner.worker.server_scan import ServerServices

STAGES = ("resolve", "settled", "fetch", "scan", "examine", "evaluate", "before-commit", "after-commit")


class Runner:
    """What stands for ``claims.run_claim``."""

    def __init__(self, database: Database, home: Path) -> None:
        self._database, self._home = database, home

    def __call__(self, claim: scans.Claim, services: ServerServices, report: Callable[[Progress], None]) -> None:
        target = claim.request.target

        def reached(stage: str) -> None:
            if "poison" in target or (f"die-at-{stage}:" in target and claim.lost == 0):
                os.kill(os.getpid(), signal.SIGKILL)

        reached("resolve")
        repository = target.partition(":")[0]
        found = factories.large_report(repository, packages=20, findings=30)
        found = type(found)(**{**{n: getattr(found, n) for n in found.__slots__}, "repository": repository})
        with self._database.session() as session:
            if not scans.settle(session, claim, found.digest, "db"):
                return
        reached("settled")
        for stage in (Stage.FETCH, Stage.SCAN, Stage.EXAMINE, Stage.EVALUATE):
            report(Progress(stage))
            reached(stage)
            self._hold(target, stage, services.services.cancelled)
            self._engine(target, stage, services.services)
            self._die_in_its_directory(claim, stage, services.services.settings)
            time.sleep(0.02)
        self._database.transact(lambda session: self._record(session, claim, found, reached))
        reached("after-commit")

    def _record(self, session, claim, found, reached) -> None:  # type: ignore[no-untyped-def]
        images.record(session, claim, found, factories.evidence(found), [factories.decided(found)])
        reached("before-commit")

    def _hold(self, target: str, stage: Stage, cancelled: Callable[[], bool]) -> None:
        if "hold" not in target or stage is not Stage.SCAN:
            return
        (self._home / f"held-{os.getpid()}").touch()
        while (self._home / "hold").exists():
            if cancelled():
                raise LeaseLost("cancelled")
            time.sleep(0.05)

    def _engine(self, target: str, stage: Stage, services: Services) -> None:
        if "engine" not in target or stage is not Stage.SCAN or not (self._home / "hold").exists():
            return
        with work_directory(services.settings, "scan") as work:
            pids = self._home / f"engine-{os.getpid()}"
            script = f"sleep 600 & echo $$ $! > {pids}.partial && mv {pids}.partial {pids}; wait"
            ended = _process.run(
                ["sh", "-c", script],
                environment={"PATH": os.environ["PATH"]},
                directory=work,
                limits=services.settings.limits,
                deadline=600,
                cancelled=services.cancelled,
            )
        if ended.cancelled:
            raise EngineError("the scan was cancelled", reason="cancelled")

    def _die_in_its_directory(self, claim: scans.Claim, stage: Stage, settings: Settings) -> None:
        if "die-in-its-directory" not in claim.request.target or stage is not Stage.SCAN or claim.lost:
            return
        blob = self._home / "blob"
        blob.write_bytes(b"x" * 1000)
        with work_directory(settings, "scan") as work:
            (work / "layout").mkdir()
            os.link(blob, work / "layout" / "blob")
            (work / "layout").chmod(0o500)  # as an engine may leave it
            os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, home: str, broker: str, slots: str, sweep: str, lease: str) -> None:
    settings = Settings(
        home=Path(home),
        database_url=Secret(url),
        broker_url=Secret(broker),
        secret_key=Secret("k" * 40),
        workers=int(slots),
        lease_seconds=float(lease),
        heartbeat_seconds=0.4,
        sweep_seconds=float(sweep),
    )
    if url.startswith("postgresql"):  # a lock of a frozen worker is given up sooner than in production
        url += "&options=-c%20idle_in_transaction_session_timeout%3D5000"
    database = Database(url)
    attend(Worker(settings, database, make_app(settings), Runner(database, Path(home))))


if __name__ == "__main__":
    main(*sys.argv[1:])
