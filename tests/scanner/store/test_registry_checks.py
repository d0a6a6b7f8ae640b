"""Examinations of registries: one open at a time, under a lease, and what they found stays with its date."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import LeaseLost, NotFoundError
from scanner.model.finding import CheckResult, Evidence, Failed, Incomplete, Passed
from scanner.model.posture import Posture
from scanner.store import images, registries, registry_checks, scans
from scanner.store.schema import registry_check, verdict
from scanner.store.session import Database, moment
from tests.scanner.store import factories
from tests.scanner.store.together import together

KEY = Secret("a secret key for tests, long enough")
HOST = "registry.example.com"
GOOD = Posture(HOST, datetime(2026, 11, 25, 12, tzinfo=UTC), (CheckResult("registry-digest", Passed()),), "team/app")
BAD = replace(
    GOOD,
    results=(
        CheckResult("registry-digest", Failed((Evidence("other bytes: \N{SNOWMAN}"),))),
        CheckResult("x", Incomplete("y")),
    ),
)


@pytest.fixture
def registry_id(database: Database) -> str:
    with database.session() as session:
        return registries.add(session, HOST, KEY).id


def ask(database: Database, registry_id: str) -> str:
    with database.session() as session:
        return registry_checks.request(session, registry_id, "ann").id


def take(database: Database) -> registry_checks.Claim:
    with database.session() as session:
        held = registry_checks.claim(session)
    assert held is not None
    return held


def expire(session: Connection, identifier: str) -> None:
    session.execute(registry_check.update().where(registry_check.c.id == identifier).values(lease_until=1.0))


def test_asked_for_claimed_and_ended(database: Database, registry_id: str) -> None:
    identifier = ask(database, registry_id)
    held = take(database)
    assert (held.id, held.registry_id) == (identifier, registry_id)
    with database.session() as session:
        assert registry_checks.claim(session) is None
        assert registry_checks.get(session, identifier).state == "running"
        registry_checks.finish(session, held, BAD)
    with database.read() as session:
        view = registry_checks.get(session, identifier)
        assert (view.state, view.failed, view.incomplete, view.posture, view.requested_by) == ("done", 1, 1, BAD, "ann")
        assert view.ended_at is not None
        assert registry_checks.latest(session, registry_id) == BAD
        assert registry_checks.of_host(session, HOST) == BAD
        assert registry_checks.of_host(session, "other.example.com") is None
        assert registry_checks.newest(session)[registry_id].id == identifier


def test_one_is_open_at_a_time(database: Database, registry_id: str) -> None:
    first = ask(database, registry_id)
    assert ask(database, registry_id) == first
    held = take(database)
    assert ask(database, registry_id) == first
    with database.session() as session:
        registry_checks.finish(session, held, GOOD)
    assert ask(database, registry_id) != first


def test_many_who_ask_at_once_get_the_same(database: Database, registry_id: str) -> None:
    found = together(8, lambda number: ask(database, registry_id))
    assert len(set(found)) == 1


def test_of_many_workers_one_gets_it(database: Database, registry_id: str) -> None:
    ask(database, registry_id)

    def claim(number: int) -> registry_checks.Claim | None:
        with database.session() as session:
            return registry_checks.claim(session)

    assert sum(held is not None for held in together(8, claim)) == 1


def test_a_worker_that_vanished_is_followed_and_writes_nothing_any_more(database: Database, registry_id: str) -> None:
    identifier = ask(database, registry_id)
    lost = take(database)
    with database.session() as session:
        expire(session, identifier)
    second = take(database)
    assert second.attempt == lost.attempt + 1
    with pytest.raises(LeaseLost), database.session() as session:
        registry_checks.finish(session, lost, BAD)
    with database.session() as session:
        registry_checks.finish(session, second, GOOD)
    with database.read() as session:
        assert registry_checks.latest(session, registry_id) == GOOD


def test_one_that_costs_three_workers_is_given_up(database: Database, registry_id: str) -> None:
    identifier = ask(database, registry_id)
    for _ in range(3):
        take(database)
        with database.session() as session:
            expire(session, identifier)
    with database.session() as session:
        assert registry_checks.claim(session) is None
        view = registry_checks.get(session, identifier)
    assert (view.state, view.reason) == ("failed", "worker_lost")


def test_one_that_failed_says_why_and_hides_nothing_that_is_known(database: Database, registry_id: str) -> None:
    ask(database, registry_id)
    with database.session() as session:
        held = registry_checks.claim(session)
        assert held
        registry_checks.finish(session, held, BAD)
    identifier = ask(database, registry_id)
    with database.session() as session:
        held = registry_checks.claim(session)
        assert held
        registry_checks.fail(session, held, "registry_unreachable", "cannot reach it")
        assert registry_checks.latest(session, registry_id) == BAD
        view = registry_checks.get(session, identifier)
        assert (view.state, view.reason, view.message, view.posture) == (
            "failed",
            "registry_unreachable",
            "cannot reach it",
            None,
        )
        assert [item.state for item in registry_checks.history(session, registry_id)] == ["failed", "done"]


def _age(session: Connection, seconds: float) -> None:
    session.execute(registry_check.update().values(created_epoch=registry_check.c.created_epoch - seconds))


def test_the_schedule_asks_for_what_is_unknown_or_soon_too_old(database: Database, registry_id: str) -> None:
    with database.session() as session:
        assert registry_checks.schedule(session, 24) == 1
        assert registry_checks.schedule(session, 24) == 0, "it is open"
        held = registry_checks.claim(session)
        assert held
        registry_checks.finish(session, held, GOOD)
        assert registry_checks.schedule(session, 24) == 0, "it is new"
        _age(session, 11 * 3600)
        assert registry_checks.schedule(session, 24) == 0
        _age(session, 2 * 3600)
        assert registry_checks.schedule(session, 24) == 1
        held = registry_checks.claim(session)
        assert held
        registry_checks.fail(session, held, "no", "no")
        assert registry_checks.schedule(session, 24) == 0, "not at once again"
        _age(session, 1000)
        assert registry_checks.schedule(session, 24) == 1


def test_a_change_has_decisions_made_anew_of_that_registry_only(database: Database, registry_id: str) -> None:
    found = factories.report(packages=[factories.package(1)], repository=f"{HOST}/team/app")
    with database.session() as session:
        scans.request(session, factories.request())
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        images.record(session, held, found, factories.evidence(found), [factories.decided(found)])
        assert registry_checks.repository_of(session, HOST) == "team/app"
        assert registry_checks.repository_of(session, "registry.example.co") == ""
        for posture, expected in ((GOOD, 0.0), (GOOD, None), (BAD, 0.0)):
            session.execute(verdict.update().values(valid_until=None))
            registry_checks.record(session, registry_id, posture, "scan")
            assert session.execute(sa.select(verdict.c.valid_until)).scalar() == expected
        session.execute(verdict.update().values(valid_until=None))
        registry_checks.record(session, registry_id, replace(GOOD, host="other.example.com"), "scan")
        assert session.execute(sa.select(verdict.c.valid_until)).scalar() is None


def test_history_has_an_end_and_what_is_known_is_not_forgotten(database: Database, registry_id: str) -> None:
    with database.session() as session:
        registry_checks.record(session, registry_id, BAD, "scan")
        for _ in range(105):
            registry_checks.request(session, registry_id, "schedule")
            held = registry_checks.claim(session)
            assert held
            registry_checks.fail(session, held, "no", "no")
        assert registry_checks.latest(session, registry_id) == BAD
        assert len(registry_checks.history(session, registry_id, 1000)) == 101


def test_a_registry_that_is_removed_takes_its_examinations_along(database: Database, registry_id: str) -> None:
    ask(database, registry_id)
    with database.session() as session:
        registries.remove(session, registry_id)
        assert session.execute(sa.select(sa.func.count()).select_from(registry_check)).scalar() == 0
        with pytest.raises(NotFoundError):
            registry_checks.request(session, registry_id, "ann")


def test_the_posture_of_a_past_moment(database: Database, registry_id: str) -> None:
    with database.session() as session:
        registry_checks.record(session, registry_id, GOOD, "ann")
        _age(session, 7200)
        session.execute(registry_check.update().values(created_at=moment(session) - timedelta(hours=2)))
        between = moment(session) - timedelta(hours=1)
        registry_checks.record(session, registry_id, BAD, "ann")
        assert registry_checks.latest(session, registry_id) == BAD
        assert registry_checks.latest(session, registry_id, between) == GOOD
        assert registry_checks.latest(session, registry_id, between - timedelta(hours=9)) is None
