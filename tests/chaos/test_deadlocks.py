"""Storms of transactions that write the same rows in any order, on PostgreSQL: nobody is turned away, nothing is
lost or done twice.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner import catalog, queue
from scanner.config import Secret, Settings
from scanner.model.decision import Verdict
from scanner.services import decisions
from scanner.store import deliveries, gate, images, policies, registries, scans
from scanner.store.schema import delivery, scan, verdict
from scanner.store.session import Database
from tests.databases import migrated_url
from tests.scanner.store import factories as make
from tests.scanner.store.together import together
from tests.web.webhooks.test_distribution import DIGEST, envelope
from web import create_app

# With libfaketime the timer of PostgreSQL's deadlock detector never fires.
pytestmark = pytest.mark.real_clock
KEY = Secret("a secret key for tests, long enough")
HOST = "registry.example.com"
EVENTS = "application/vnd.docker.distribution.events.v2+json"
DELIVERIES, AT_ONCE, IMAGES = 96, 16, 24


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url("postgresql", tmp_path))
    yield database
    database.engine.dispose()


def test_deliveries_that_name_the_same_images_in_any_order(database: Database, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, secret_key=KEY, rate_limits=False)
    app = create_app(settings, database, queue.make_app(settings))
    with database.session() as session:
        registry = registries.add(session, HOST, KEY)
        secret = deliveries.create_hook(session, "lab", "distribution", registry.id, KEY)[1].reveal()

    def deliver(number: int) -> list[int]:
        answers = []
        for one in range(DELIVERIES // AT_ONCE):
            names = list(range(IMAGES))
            random.Random(number * 1000 + one).shuffle(names)
            document = {"events": []}
            for name in names:
                (event,) = envelope(repository=f"shop/part{name}")["events"]
                own = {**event, "id": f"{number}-{one}-{name}", "request": {**event["request"], "host": HOST}}
                document["events"].append(own)
            answers.append(
                app.test_client()
                .post(
                    "/webhooks/distribution",
                    data=json.dumps(document),
                    content_type=EVENTS,
                    headers={"Authorization": f"Bearer {secret}"},
                )
                .status_code
            )
        return answers

    ends = together(AT_ONCE, deliver)
    assert Counter(status for end in ends for status in (end if isinstance(end, list) else [end])) == {202: DELIVERIES}
    with database.read() as session:
        targets = Counter(session.execute(sa.select(scan.c.target)).scalars())
        assert targets == {f"{HOST}/shop/part{name}:1.4.2@{DIGEST}": 1 for name in range(IMAGES)}
        assert session.execute(sa.select(sa.func.count()).select_from(delivery)).scalar() == DELIVERIES
        assert scans.invariants(session) == []


def test_scans_that_end_while_policies_change_and_decisions_are_made_anew(database: Database) -> None:
    """Each writes listed images, images, packages, decisions and verdicts of the same names."""
    text = "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: p}\nmatch: {environments: [production, test]}\n"
    text += "rules:\n  - {id: fix, vulnerability: {severity: [critical]}, action: deny}\n"
    with database.session() as session:
        policies.put(session, "p", text, "ann")
    known, remedies = catalog.known_names(), catalog.remedies()
    packages = [make.package(n) for n in range(40)]

    def record(number: int) -> None:
        own = packages[:]
        random.Random(number).shuffle(own)
        found = make.report(
            f"image {number % 2}", packages=own, vulnerabilities=[make.vulnerability(n, p) for n, p in enumerate(own)]
        )
        found = replace(found, tag=str(number % 3))
        asked = make.request(f"{make.REPOSITORY}:{found.tag}", force=True)
        scan_id = database.uncrossed(lambda s: scans.request(s, asked)).scan_id
        held = database.uncrossed(lambda s: scans.claim(s, "w", ["push"], 60, scan_id=scan_id))
        assert held is not None
        made = [make.decided(found, Verdict.DENY, name) for name in ("", "production", "test")]
        database.transact(lambda s: images.record(s, held, found, make.evidence(found), made))

    def one(number: int) -> None:
        for _ in range(4):
            if number % 4 == 3:
                database.uncrossed(gate.invalidate)
                decisions.refresh(database, known, remedies, seconds=0.5)
            else:
                record(number)

    assert [end for end in together(12, one) if isinstance(end, Exception)] == []
    with database.read() as session:
        assert scans.invariants(session) == []
        assert session.execute(sa.select(sa.func.count()).select_from(verdict)).scalar() == 6
