"""Snapshots and renewed decisions where another process is at the same, and what is refused before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from scanner.errors import UsageError
from scanner.model.scan import Lane, ScanRequest
from scanner.services import inventory
from scanner.store import inventory as store
from scanner.store import scans
from scanner.store.schema import running_workload
from scanner.store.session import Database
from tests.actors import ownerless
from tests.scanner.services.interleaved import Interleaved
from tests.scanner.store import factories as make

AGENT = ownerless("agent", "inventory")


@pytest.fixture
def late(url: str) -> Iterator[Interleaved]:
    database = Interleaved(url)
    yield database
    database.engine.dispose()


def snapshot(generation: int, *names: str, **more: Any) -> inventory.Snapshot:
    found = [{"name": n, "image": f"{make.REPOSITORY}:1", "source": "kubernetes", "kind": "Pod"} for n in names]
    return replace(inventory.Snapshot("production", "kubernetes", "cluster", generation, found), **more)


def report(database: Database, said: inventory.Snapshot) -> inventory.SnapshotResult:
    return inventory.report(database, AGENT, said, "trivy")


def test_a_snapshot_that_meets_an_older_one_begins_again(database: Database, late: Interleaved) -> None:
    """What it compared itself with is gone, so its own numbers would be wrong."""
    first = iter([snapshot(1, "a", "b")])
    late.meanwhile = lambda: [report(database, each) for each in first]
    done = report(late, snapshot(9, "b", "c"))
    assert (done.added, done.removed, done.unchanged) == (1, 1, 1)


def test_a_snapshot_that_meets_others_again_and_again_gives_up(database: Database, late: Interleaved) -> None:
    generations = iter(range(1, 90))
    late.meanwhile = lambda: report(database, snapshot(next(generations), "a"))
    with pytest.raises(UsageError) as refused:
        report(late, snapshot(100, "b"))
    assert refused.value.reason == "out_of_order"
    with database.read() as session:
        assert [row.name for row in store.list_workloads(session, None).items] == ["a"]


def test_a_decision_about_a_workload_that_has_changed_meanwhile_is_not_written(
    database: Database, late: Interleaved
) -> None:
    report(database, snapshot(1, "a"))
    with database.session() as session:
        session.execute(running_workload.update().values(valid_until=0.0))
    assert inventory.refresh(database, seconds=0) == 0, "no time, no work"
    changed = snapshot(2, documents=[{**snapshot(2, "a").documents[0], "privileged": True}])
    late.meanwhile = lambda: report(database, changed)
    assert inventory.refresh(late, seconds=60) == 0
    with database.read() as session:
        (row,) = store.list_workloads(session, None).items
        assert "privileged-container" in row.failed
    late.meanwhile = lambda: None
    with database.session() as session:
        session.execute(running_workload.update().values(valid_until=0.0))
    assert inventory.refresh(late, seconds=60) == 1


def test_what_is_no_snapshot_is_refused(database: Database) -> None:
    many = [{"name": "a"}] * (inventory.MOST_WORKLOADS + 1)
    with pytest.raises(UsageError, match="at most") as refused:
        report(database, snapshot(1, documents=many))
    assert refused.value.field == "workloads"
    with pytest.raises(UsageError, match="not a source") as unknown:
        inventory.parse("nomad", [("job.hcl", "job {}")])
    assert unknown.value.field == "source"


def test_a_workload_without_an_image_is_judged_by_how_it_is_run(database: Database) -> None:
    said = snapshot(1, "a")
    report(database, replace(said, documents=[{**said.documents[0], "image": ""}]))
    with database.read() as session:
        (row,) = store.list_workloads(session, None).items
    assert (row.repository, row.digest) == ("", "")


def test_an_image_that_is_queued_already_is_not_queued_by_a_snapshot(database: Database) -> None:
    asked = ScanRequest(f"{make.REPOSITORY}:1", None, "trivy", Lane.PUSH, False, "default", "ci", "api")
    with database.session() as session:
        scans.request(session, asked)
    assert report(database, snapshot(1, "a")).tickets == ()
    with database.read() as session:
        assert len(scans.list_scans(session, None).items) == 1
