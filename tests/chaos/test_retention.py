"""A pruning that is killed in the middle: nothing in force is lost, the next one goes on, and the audit log
verifies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner.model.audit import Action
from scanner.store import audit, gate, jobs, scans, schema
from scanner.store.session import Database, moment
from tests.actors import person
from tests.chaos.pruner import KEY
from tests.databases import BACKENDS, migrated_url
from tests.scanner.store import factories as make
from tests.scanner.store import recorded

ROOT = Path(__file__).parents[2]
IMAGES = 6
KILLS = 3


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(request.param, tmp_path), KEY)
    yield database
    database.engine.dispose()


def start(database: Database, name: str) -> subprocess.Popen[str]:
    url = database.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.chaos.pruner", url, name]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


def holds(database: Database, digest: str) -> None:
    """What must be true whenever a pruning dies."""
    with database.read() as session:
        assert audit.verify(session, KEY).broken is None
        assert scans.invariants(session) == []
        row = gate.current_decision(session, digest, "", make.REPOSITORY, None)
        assert row is not None
        assert row.document


def test_killed_in_the_middle_nothing_is_lost(database: Database) -> None:
    digest = ""
    for number in range(IMAGES):
        packages = [make.package(number), make.package(99)]
        flaws = [make.vulnerability(number, packages[0])]
        report = make.report(f"image {number}", packages=packages, vulnerabilities=flaws)
        recorded.record(database, report)
        digest = report.digest
    with database.session() as session:
        for number in range(4):
            audit.record(session, person("ada"), Action.SCAN_REQUEST, str(number))
        asked = jobs.request(session, jobs.RETENTION, jobs.ANYWHERE, "schedule")
    for kill in range(KILLS):
        process = start(database, f"killed {kill}")
        assert process.stdout
        for _ in range(4 * (kill + 1)):  # so many steps further, each time
            process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        holds(database, digest)
        with database.session() as session:  # its lease runs out, and a sweeper puts it back
            session.execute(schema.job.update().where(schema.job.c.state == "running").values(lease_until=0.0))
            jobs.sweep(session)
    process = start(database, "the last")
    process.communicate(timeout=60)
    assert process.returncode == 0
    holds(database, digest)
    with database.read() as session:
        ended = jobs.get(session, asked)
        removed = ended.parameters["removed"]
        told = audit.list_entries(session, audit.Filter(action="retention.prune")).items
        left = session.execute(sa.select(sa.func.count()).select_from(schema.listing)).scalar_one()
        pruned = audit.verify(session, KEY).pruned
        assert moment(session) > ended.created_at
    assert ended.state == "done"
    assert ended.lost <= KILLS
    assert (left, removed["listing"]) == (1, IMAGES - 1), "each row is counted once"
    assert removed["outbox"] == 2 * IMAGES - 1, "a verdict for each, and moves of the tag"
    assert [entry.detail["removed"] for entry in told] == [removed]
    assert pruned == removed["audit_log"] == 3, "the newest entry stays, and the entry of the pruning is after it"
