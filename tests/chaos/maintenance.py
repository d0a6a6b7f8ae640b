"""A worker that does nothing but keep up, as slowly as it is told, so that it can be killed in the middle."""

from __future__ import annotations

import sys
from pathlib import Path

from scanner.config import Secret, Settings
from scanner.queue import make_app
from scanner.store.session import Database
from scanner.worker import maintenance
from scanner.worker.worker import Worker


def main(url: str, home: str, per_second: str) -> None:
    settings = Settings(
        home=Path(home),
        database_url=Secret(url),
        secret_key=Secret("k" * 40),
        lease_seconds=1.5,
        heartbeat_seconds=0.4,
        rematch_per_second=float(per_second),
    )
    database = Database(url)
    worker = Worker(settings, database, make_app(settings))
    while worker.keep_up_once(maintenance.Upkeep(settings, database)):
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
