"""A simulated year of scans: what each table holds at the end of each month, and what the gate answers while a pruning
runs.

    python -m benchmarks.retention [--scans 500] [--months 12] [--database postgresql+psycopg://...] [--keep
    evidence=60d]

Every day so many images are pushed, each a new digest under one of the tags, as a registry's webhook tells of them.
The clock is injected: rows are written with the day's date, and each week a pruning runs at that date. Images have few
packages: what counts is whether the rows level off. Superseded decisions are kept for 400 days by default and level
off in the fourteenth month; ``--keep`` sets other periods. At the end the gate is asked for two seconds without a
pruning and for as long as one runs, alternating.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from benchmarks import databases
from scanner.config import Retention, Secret, Settings
from scanner.model.actor import SERVICE
from scanner.model.reference import Digest
from scanner.services import retention
from scanner.store import accounts, deliveries, gate, jobs, registries, schema
from scanner.store.retention import sizes
from scanner.store.session import Database

KEY = Secret("k" * 40)
HOST = "registry.example.com"
TAGS = 200  # names that images are pushed under
PACKAGES, FINDINGS = 12, 6  # of each image; one package of each is its own
BODY = bytes(range(256)) * 16  # 4 KiB of evidence
DOCUMENT = '{"verdict":"allow","padding":"' + "x" * 1500 + '"}'
DAY = timedelta(days=1)


class Year:
    """Writes days as recording scans would have left them, in bulk."""

    def __init__(self, database: Database, scans: int, start: datetime) -> None:
        self.database, self.scans, self.now, self.number = database, scans, start, 0
        with database.session() as session:
            registry = registries.add(session, HOST, project="default", key=KEY)
            self.hook, _ = deliveries.create_hook(session, "push", "distribution", registry.id, KEY)
            self.token = accounts.create_token(session, "benchmark", ["gate"], KEY)[0]
            _fill(session, schema.component, [_component(n, f"shared{n}") for n in range(1, PACKAGES)])
            _fill(session, schema.vulnerability, [_vulnerability(n) for n in range(1, FINDINGS + 1)])

    def day(self) -> None:
        self.now += DAY
        at, epoch = self.now, self.now.timestamp()
        rows: dict[str, list[dict[str, Any]]] = {}

        def add(table: sa.Table, **values: Any) -> None:
            rows.setdefault(table.name, []).append(values)

        for _ in range(self.scans):
            self.number += 1
            n, digest = self.number, str(Digest.of(str(self.number).encode()))
            repository, tag = f"{HOST}/app{n % TAGS // 10}", f"t{n % TAGS}"
            scan_id, delivery_id = (str(uuid.UUID(int=n + offset)) for offset in (0, 1 << 64))
            report_id, component = digest.removeprefix("sha256:"), PACKAGES + n
            name = {"digest": digest, "repository": repository}
            add(
                schema.delivery,
                id=delivery_id,
                webhook_id=self.hook,
                key=str(n),
                events=1,
                outcome="1 scan",
                received_at=at,
                refused=[],
            )
            add(schema.component, **_component(component, f"own{n}"))
            add(
                schema.scan,
                id=scan_id,
                target=f"{repository}:{tag}",
                engine="trivy",
                lane="push",
                force=False,
                project="default",
                requested_by="webhook",
                source="webhook",
                state="done",
                stage="record",
                reason="",
                message="",
                digest=digest,
                fence=1,
                worker="w",
                attempt=0,
                lost=0,
                next_at=epoch,
                created_epoch=epoch,
                created_at=at,
                started_at=at,
                finished_at=at,
                report_id=report_id,
            )
            add(
                schema.report,
                id=report_id,
                **name,
                tag=tag,
                engine="trivy",
                engine_version="1",
                advisories="1",
                platform="linux/amd64",
                complete=True,
                created_at=at,
                body=BODY,
            )
            add(schema.image, id=n, digest=digest, config_digest=digest, platform="linux/amd64", size=1, first_seen=at)
            add(schema.image_stack, subject=digest, digest=digest, chain=digest, layers=3, history=3, created_at=at)
            add(
                schema.listing,
                id=n,
                **name,
                project="default",
                tag=tag,
                report_id=report_id,
                verdict="allow",
                undecided=False,
                critical=0,
                high=1,
                medium=1,
                low=1,
                unknown=0,
                fixable=1,
                failed_checks=0,
                incomplete=0,
                size=1,
                scanned_at=at,
                scanned_epoch=epoch,
            )
            add(
                schema.decision,
                id=n,
                **name,
                policy="default",
                policy_version=1,
                environment="",
                verdict="allow",
                undecided=False,
                evidence=digest,
                scan_id=scan_id,
                decided_at=at,
                document=DOCUMENT,
            )
            add(
                schema.verdict,
                **name,
                environment="",
                project="default",
                decision_id=n,
                report_id=report_id,
                document=DOCUMENT,
            )
            add(schema.tag_move, repository=repository, tag=tag, digest=digest, seen_at=at)
            event = {"event_id": str(uuid.uuid4()), "kind": "image.decided", "project": "default"}
            add(schema.outbox, **event, subject=digest, body={"verdict": "allow"}, created_at=at)
            add(schema.idempotency, key=f"event:{n}", scan_id=scan_id, created_at=at)
            add(schema.delivery_scan, delivery_id=delivery_id, scan_id=scan_id)
            add(schema.scan_attempt, scan_id=scan_id, fence=1, worker="w", started_at=at, ended_at=at)
            for one in (*range(1, PACKAGES), component):
                add(schema.image_component, image_id=n, component_id=one)
            for flaw in range(1, FINDINGS + 1):
                owner = component if flaw == 1 else flaw
                add(schema.finding, image_id=n, component_id=owner, vulnerability_id=flaw, fixable=True)
            add(schema.first_seen, repository=repository, component_id=component, vulnerability_id=1, at=at)
        with self.database.session() as session:
            for name_, values in rows.items():
                _fill(session, schema.metadata.tables[name_], values)

    def prune(self, settings: Settings) -> Mapping[str, int]:
        with self.database.session() as session:
            jobs.request(session, jobs.RETENTION, jobs.ANYWHERE, "benchmark")
            held = jobs.claim(session, "benchmark", {jobs.RETENTION: None}, 3600)
        assert held
        return retention.Pruning(settings, self.database, held, SERVICE, now=self.now, rest=lambda seconds: None).run()


def _component(number: int, name: str) -> dict[str, Any]:
    purl = f"pkg:deb/debian/{name}@1"
    return {"id": number, "purl": purl, "name": name, "version": "1", "type": "debian"}


def _vulnerability(number: int) -> dict[str, Any]:
    text = {"title": "a flaw", "description": "words " * 60, "url": "https://example.com"}
    return {"id": number, "name": f"CVE-2026-{number:05}", "severity": "high", "document": {}, **text}


def _fill(session: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    session.execute(table.insert(), rows)


def rate(year: Year, stop: threading.Event | None, seconds: float) -> float:
    """Questions that the gate's statement answers in a second, for ``seconds`` or until ``stop``."""
    asked, own = 0, gate.Gate(year.database)
    digest = str(Digest.of(str(year.number).encode()))
    repository = f"{HOST}/app{year.number % TAGS // 10}"
    with year.database.read() as session:
        hashed = session.execute(sa.select(schema.token.c.hash)).scalar_one()
    began = time.monotonic()
    while time.monotonic() - began < seconds and not (stop and stop.is_set()):
        found = own.ask(hashed, digest, repository, "")
        assert found and found.row, "the gate lost its answer"
        asked += 1
    return asked / (time.monotonic() - began)


def measure(year: Year, settings: Settings, rounds: int) -> None:
    """The gate's rate with a pruning beside it as a ratio to without, as it runs in a worker: with its pauses."""
    ratios = []
    for _ in range(rounds):
        for _ in range(14):
            year.day()
        before = rate(year, None, 2)
        with year.database.session() as session:
            jobs.request(session, jobs.RETENTION, jobs.ANYWHERE, "benchmark")
            held = jobs.claim(session, "benchmark", {jobs.RETENTION: None}, 3600)
        assert held
        over, own = threading.Event(), retention.Pruning(settings, year.database, held, SERVICE, now=year.now)

        def prune(own: retention.Pruning = own, over: threading.Event = over) -> None:
            try:
                own.run()
            finally:
                over.set()

        thread = threading.Thread(target=prune)
        thread.start()
        beside = rate(year, over, 120)
        thread.join()
        ratios.append(beside / before)
        print(f"gate: {before:7.0f} questions/s alone, {beside:7.0f} beside a pruning: {beside / before:.2f}")
    print(f"the median of the ratios: {statistics.median(ratios):.2f} (one process: the pruning has half of its time)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=500, help="a day")
    parser.add_argument("--months", type=int, default=12, help="of 30 days")
    parser.add_argument("--rounds", type=int, default=3, help="of the gate's measurement")
    databases.add_option(parser)
    parser.add_argument("--keep", action="append", default=[], metavar="WHAT=PERIOD", help="such as decisions=60d")
    asked = parser.parse_args()
    periods = {f"retention_{name}": Retention.parse(text) for name, _, text in (k.partition("=") for k in asked.keep)}
    with tempfile.TemporaryDirectory() as directory:
        settings = dataclasses.replace(Settings(home=Path(directory)), **periods)
        database = Database(asked.database or f"sqlite:///{directory}/year.db", KEY)
        database.upgrade()
        year = Year(database, asked.scans, datetime(2025, 1, 1, tzinfo=UTC))
        months: list[dict[str, tuple[int, int]]] = []
        for month in range(asked.months):
            for day in range(30):
                year.day()
                if day % 7 == 6 or day == 29:
                    year.prune(settings)
            with database.read() as session:
                months.append({size.table: (size.rows, size.bytes) for size in sizes(session)})
            rows, size = (sum(value[i] for value in months[-1].values()) for i in (0, 1))
            print(f"month {month + 1:2}: {rows:11,} rows {size / 1e6:9.1f} MB", flush=True)
        largest = sorted(months[-1], key=lambda table: -months[-1][table][1])[:16]
        print("\nrows at the end of each month")
        for table in largest:
            line = " ".join(f"{month[table][0]:9,}" for month in months)
            print(f"{table:18} {line}")
        print("\nMB at the end of each month")
        for table in largest:
            line = " ".join(f"{month[table][1] / 1e6:9.1f}" for month in months)
            print(f"{table:18} {line}")
        print()
        measure(year, settings, asked.rounds)


if __name__ == "__main__":
    main()
