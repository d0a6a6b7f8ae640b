"""Server time of every page on a large store, and its ratio to one bare indexed query on the same store in the same
run.

    python -m benchmarks.pages [--images 10000] [--database URL]

The store is ``benchmarks.fleet``'s: 10,000 images with 4.6 million findings. A database that is filled already is
used as it is; SQLite in a temporary directory otherwise. The bare query reads one image's row by its digest; goal:
100 ms for every page.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from benchmarks import databases, fleet
from scanner import queue
from scanner.config import Secret, Settings, secret_key
from scanner.store import accounts, schema
from scanner.store.session import Database
from web import create_app

GOAL_MILLISECONDS = 100.0
_ROUNDS = 7


def measure(work: Callable[[], object]) -> float:
    """Median milliseconds of a few rounds, after one that is not counted."""
    work()
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def pages(known: fleet.Fleet) -> dict[str, str]:
    """Every page that shows the store, by name."""
    image = f"/images/{known.digest}"
    return {
        "overview": "/overview",
        "images": "/images",
        "images, searched": "/images?q=service-0042",
        "images, filtered": "/images?verdict=deny&severity=critical&fixable=1",
        "images, as CSV": "/images?format=csv",
        **{
            f"image, {tab}": f"{image}?tab={tab}"
            for tab in ("vulnerabilities", "checks", "components", "layers", "history")
        },
        "compare": f"{image}/compare?with={known.other}",
        "vulnerabilities": "/vulnerabilities",
        "vulnerabilities, searched": "/vulnerabilities?q=CVE-2019",
        "vulnerability of many images": f"/vulnerabilities/{known.vulnerability}",
        "packages of a name": "/packages?q=openssl&version=%3C99",
        "packages, many names": "/packages?q=lib",
        "packages, running": "/packages?q=openssl&running=1",
        "packages, by the API": "/api/v1/components?name=openssl&version=%3C99",
        "scans": "/scans",
        "policies": "/policies",
        "registries": "/registries",
        "exemptions": "/exemptions",
        "events": "/events",
        "audit log": "/audit-log",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Server time of every page on a large store.")
    parser.add_argument("--images", type=int, default=10_000)
    databases.add_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            home=Path(home), database_url=Secret(options.database or f"sqlite:///{home}/fleet.db"), rate_limits=False
        )
        database = Database(settings.database)
        database.upgrade()
        known = fleet.describe(database) or fleet.fill(database, options.images)
        with database.session() as session:
            token = accounts.create_token(
                session, "benchmark", ("read", "scan", "manage", "audit"), secret_key(settings)
            )[1]
        client = create_app(settings, database, queue.make_app(settings)).test_client()
        headers = {"Authorization": f"Bearer {token.reveal()}", "Accept": "text/html"}
        lookup = sa.select(schema.image.c.id, schema.image.c.size).where(schema.image.c.digest == known.digest)

        def bare() -> None:
            with database.read() as session:
                assert session.execute(lookup).first()

        def ask(path: str) -> None:
            answer = client.get(path, headers=headers)
            assert answer.status_code == 200, (path, answer.status_code)
            answer.get_data()

        floor = measure(bare)
        print(f"{known.images:,} images, {known.findings:,} findings; one row by its index: {floor:.2f} ms")
        slow = 0
        for name, path in pages(known).items():
            taken = measure(lambda path=path: ask(path))  # type: ignore[misc]
            slow += taken > GOAL_MILLISECONDS
            print(
                f"{name:30} {taken:7.1f} ms  {taken / floor:6.0f} "
                f"x{'   over 100 ms' if taken > GOAL_MILLISECONDS else ''}"
            )
        return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
