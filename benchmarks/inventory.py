"""What an inventory of 5,000 workloads costs, each beside a floor that is measured in the same run.

    python -m benchmarks.inventory [--workloads 5000] [--documents 10000]

* a snapshot in which nothing, or one workload in a hundred, changed: at most 5 x the bare insert of all its rows
* the page and the API of 50 workloads: at most 20 x one workload read by its index over the same API
* `dockwarden audit` of a stream of manifests, from start to report: at most 3 x a program that loads its YAML with
  libyaml
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from benchmarks.pages import measure
from scanner import queue
from scanner.config import Secret, Settings, secret_key
from scanner.model.actor import COMMAND_LINE
from scanner.services import inventory
from scanner.store import accounts, schema
from scanner.store.session import Database
from web import create_app

_RUNS = 3
MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: service-{n}, namespace: team-{t}}}
spec:
  replicas: 2
  template:
    metadata: {{labels: {{app: service-{n}, team: team-{t}}}}}
    spec:
      containers:
        - name: app
          image: registry.example.com/team-{t}/service-{n}:1.{t}
          env:
            - {{name: LEVEL, value: info}}
          resources: {{limits: {{cpu: "1", memory: 256Mi}}}}
          securityContext: {{privileged: {bad}, readOnlyRootFilesystem: true}}
"""


def stream(count: int) -> str:
    """So many manifests in one stream."""
    return "---\n".join(MANIFEST.format(n=n, t=n % 30, bad=str(n % 10 == 0).lower()) for n in range(count))


def timed(work: Callable[[], object]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--workloads", type=int, default=5000)
    parser.add_argument("--documents", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), database_url=Secret(f"sqlite:///{home}/d.db"), rate_limits=False)
        database = Database(settings.database)
        database.upgrade()
        missed = snapshots(database, options.workloads) + lists(settings, database)
        missed += audit(Path(home), options.documents)
    return 1 if missed else 0


def told(name: str, taken: float, floor: float, goal: float) -> int:
    """Print a ratio. Returns 1 where it misses its goal."""
    ratio = taken / floor
    print(f"{name:58} {taken * 1000:9.1f} ms {ratio:6.1f} x (at most {goal:g})")
    return int(ratio > goal)


def snapshots(database: Database, count: int) -> int:
    """Report a cluster for the first time, unchanged, and with some changes."""
    found = inventory.parse("kubernetes", [("cluster.yaml", stream(count))])

    def report(generation: int, documents: list[dict[str, object]]) -> None:
        snapshot = inventory.Snapshot("production", "kubernetes", "cluster", generation, documents)
        inventory.report(database, COMMAND_LINE, snapshot, "trivy")

    first = timed(lambda: report(1, found))
    with database.read() as session:
        rows = [dict(row._mapping) for row in session.execute(sa.select(schema.running_workload))]
    for row in rows:
        row["uid"], row["name"], row["id"] = str(uuid.uuid4()), f"bare {row['name']}", row["id"] + len(rows)
    bare = sa.insert(schema.running_workload)

    def insert() -> None:
        with database.session() as session:
            session.execute(bare, rows)

    floor = timed(insert)
    with database.session() as session:
        session.execute(schema.running_workload.delete().where(schema.running_workload.c.name.startswith("bare ")))
    print(f"bare insert of {count:,} rows: {floor * 1000:.0f} ms; the first snapshot, every check run: {first:.1f} s")
    missed = told("snapshot, nothing changed", timed(lambda: report(2, found)), floor, 5)
    some = [{**each, "privileged": True} if n % 100 == 1 else each for n, each in enumerate(found)]
    missed += told("snapshot, one in a hundred changed", timed(lambda: report(3, some)), floor, 5)
    return missed


def lists(settings: Settings, database: Database) -> int:
    """The page and the API."""
    with database.session() as session:
        token = accounts.create_token(session, "benchmark", ("read",), secret_key(settings))[1]
        uid = session.execute(sa.select(schema.running_workload.c.uid).limit(1)).scalar_one()
    client = create_app(settings, database, queue.make_app(settings)).test_client()
    headers = {"Authorization": f"Bearer {token.reveal()}", "Accept": "text/html"}

    def ask(path: str) -> None:
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200, (path, answer.status_code)

    lookup = sa.select(schema.running_workload).where(schema.running_workload.c.uid == uid)

    def bare() -> None:
        with database.read() as session:
            assert session.execute(lookup).first()

    query = measure(bare) / 1000
    floor = measure(lambda: ask(f"/api/v1/workloads/{uid}")) / 1000
    print(f"one workload by its index: {query * 1000:.2f} ms bare, {floor * 1000:.2f} ms by the API")
    missed = 0
    for path in ("/workloads", "/workloads?environment=production&verdict=deny", "/workloads?q=service-42"):
        missed += told(f"page {path}", measure(lambda path=path: ask(path)) / 1000, floor, 20)  # type: ignore[misc]
        missed += told(
            f"API {path}", measure(lambda path=path: ask("/api/v1" + path.replace("?q=", "?search="))) / 1000, floor, 20
        )  # type: ignore[misc]
    return missed


def audit(home: Path, count: int) -> int:
    """The whole command on a stream of manifests, beside a program that only loads it. Both in CPU time."""
    file = home / "stream.yaml"
    file.write_text(stream(count))
    load = "import sys, yaml; list(yaml.load_all(open(sys.argv[1], 'rb'), Loader=yaml.CSafeLoader))"
    command = (sys.executable, "-m", "scanner", "audit", f"kubernetes:{file}", "-o", str(home / "report"))
    # In turn: what else the machine does then slows down both.
    runs = [(processor_time(sys.executable, "-c", load, str(file)), processor_time(*command)) for _ in range(_RUNS)]
    floor, own = (min(times) for times in zip(*runs, strict=True))
    print(f"loading {count:,} documents with libyaml: {floor:.1f} s")
    return told("dockwarden audit, the whole command", own, floor, 3)


def processor_time(*command: str) -> float:
    """Seconds of CPU time of a program: other work on the machine adds little to it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
