"""A process that prunes, in transactions of few rows, so that it can be killed in the middle."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from scanner.config import Retention, Secret, Settings
from scanner.model.actor import SERVICE
from scanner.model.scan import Progress
from scanner.services import retention
from scanner.store import jobs
from scanner.store.session import Database, moment

KEY = Secret("a" * 40)
AHEAD = timedelta(days=1000)


def main(url: str, worker: str) -> None:
    settings = Settings(home=Path("/nonexistent"), retention_audit_log=Retention.parse("1d"))
    database = Database(url, KEY)
    with database.session() as session:
        held = jobs.claim(session, worker, {jobs.RETENTION: None}, 1.0)
        now = moment(session) + AHEAD
    if held is None:
        return

    def report(progress: Progress) -> None:
        with database.session() as session:
            jobs.heartbeat(session, held, 60.0, progress)
        print(progress.done, flush=True)

    retention.Pruning(settings, database, held, SERVICE, report, now=now).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
