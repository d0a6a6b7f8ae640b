"""Jobs end whatever dies; of each kind one runs; a worker that lost its lease changes nothing."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from scanner.errors import LeaseLost
from scanner.model.scan import Progress, ScanState, Stage
from scanner.store import jobs
from scanner.store.leases import LOSSES
from scanner.store.schema import job
from scanner.store.session import Database

ANY = {"sweep-the-floor": None, "other": None}


def ask(database: Database, kind: str = "other", key: str = "k") -> str:
    with database.session() as session:
        return jobs.request(session, kind, key, "test", {"n": 1})


def claim(database: Database, kinds: dict[str, list[str] | None] | None = None) -> jobs.Job | None:
    with database.session() as session:
        return jobs.claim(session, "w", kinds or ANY, 60)


def expire(database: Database, job_id: str) -> None:
    with database.session() as session:
        session.execute(job.update().where(job.c.id == job_id).values(lease_until=0.0))
        jobs.sweep(session)


def view(database: Database, job_id: str) -> jobs.JobView:
    with database.read() as session:
        return jobs.get(session, job_id)


def test_asking_twice_is_one_job_until_it_has_ended(database: Database) -> None:
    first = ask(database)
    assert ask(database) == first
    held = claim(database)
    assert held is not None
    assert ask(database) == first
    with database.session() as session:
        jobs.finish(session, held, "done it")
    assert ask(database) != first
    assert (view(database, first).state, view(database, first).message) == (ScanState.DONE, "done it")


def test_of_a_kind_one_runs_at_a_time(database: Database) -> None:
    ask(database, "other", "a")
    ask(database, "other", "b")
    ask(database, "sweep-the-floor", "a")
    taken = [claim(database), claim(database), claim(database)]
    assert sorted(item.kind for item in taken if item) == ["other", "sweep-the-floor"]


def test_only_what_can_be_done_here_is_claimed(database: Database) -> None:
    ask(database, "other", "there")
    assert claim(database, {"other": ["here"]}) is None
    assert claim(database, {"other": []}) is None
    assert claim(database, {"other": ["here", "there"]}) is not None


def test_a_worker_that_lost_its_lease_writes_nothing(database: Database) -> None:
    job_id = ask(database)
    held = claim(database)
    assert held is not None
    expire(database, job_id)
    for late in (
        lambda s: jobs.finish(s, held),
        lambda s: jobs.check(s, held),
        lambda s: jobs.heartbeat(s, held, 60, Progress(Stage.SCAN, "still here")),
        lambda s: jobs.fail(s, held, "x", "y"),
        lambda s: jobs.keep(s, held, {}),
    ):
        with pytest.raises(LeaseLost), database.session() as session:
            late(session)
    again = claim(database)
    assert again is not None
    assert (again.id, again.fence) == (held.id, held.fence + 2)


def test_what_loses_every_worker_is_given_up(database: Database) -> None:
    job_id = ask(database)
    for _ in range(LOSSES):
        assert claim(database) is not None
        expire(database, job_id)
    assert (view(database, job_id).state, view(database, job_id).reason) == (ScanState.DEAD, "worker_lost")
    assert claim(database) is None


def test_failing_again_and_again_ends(database: Database) -> None:
    job_id = ask(database)
    for attempt in range(3):
        held = claim(database)
        assert held is not None
        assert held.attempt == attempt
        with database.session() as session:
            jobs.retry(session, held, "mirror_error", "answered 500")
            session.execute(sa.update(job).values(next_at=0.0))
            jobs.sweep(session)
    assert (view(database, job_id).state, view(database, job_id).attempt) == (ScanState.DEAD, 3)


def test_a_cancelled_one_is_taken_from_its_worker(database: Database) -> None:
    job_id = ask(database)
    held = claim(database)
    assert held is not None
    with database.session() as session:
        assert jobs.cancel(session, job_id)
        assert not jobs.cancel(session, job_id)
    with pytest.raises(LeaseLost), database.session() as session:
        jobs.check(session, held)


def test_a_newer_one_takes_the_place_of_those_before(database: Database) -> None:
    old = ask(database, "other", "trivy:old")
    with database.session() as session:
        assert jobs.supersede(session, "other", "trivy:new") == 1
    ask(database, "other", "trivy:new")
    assert (view(database, old).state, view(database, old).reason) == (ScanState.CANCELLED, "superseded")


def test_what_it_keeps_whoever_goes_on_finds(database: Database) -> None:
    job_id = ask(database)
    held = claim(database)
    assert held is not None
    with database.session() as session:
        jobs.keep(session, held, {"n": 1, "after": 17})
    expire(database, job_id)
    again = claim(database)
    assert again is not None
    assert again.parameters == {"n": 1, "after": 17}


def test_jobs_are_listed_by_kind_or_all(database: Database) -> None:
    ask(database, "other", "a")
    ask(database, "another", "b")
    with database.session() as session:
        assert {each.key for each in jobs.list_jobs(session)} == {"a", "b"}
        assert [each.key for each in jobs.list_jobs(session, ["another"])] == ["b"]
        assert len(jobs.list_jobs(session, limit=1)) == 1
        assert jobs.is_due(session, ("another",))
        assert not jobs.is_due(session, ("third",))
