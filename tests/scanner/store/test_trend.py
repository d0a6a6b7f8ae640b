"""How each day ended: noted once in a while, the last word of a day counts, projects are kept apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from scanner.model.decision import Verdict
from scanner.model.scan import Lane
from scanner.store import images, scans, trend
from scanner.store.schema import trend as table
from scanner.store.session import Database, moment
from tests.scanner.store import factories as make


def record(database: Database, name: str, verdict: Verdict, project: str = "default") -> None:
    packages = [make.package(1)]
    found = make.report(name, tag=name, packages=packages, vulnerabilities=[make.vulnerability(4, packages[0])])
    with database.session() as session:
        scans.request(session, replace(make.request(f"{make.REPOSITORY}:{name}", lane=Lane.PUSH), project=project))
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        images.record(session, held, found, make.evidence(found), [make.decided(found, verdict)])


def test_a_day_is_the_last_that_was_noted_of_it(database: Database) -> None:
    record(database, "one", Verdict.ALLOW)
    with database.session() as session:
        assert trend.note(session)
        assert not trend.note(session)  # just now
        earlier = moment(session) - trend.EVERY
        session.execute(sa.update(table).values(noted_at=earlier))
    record(database, "two", Verdict.DENY)
    with database.session() as session:
        assert trend.note(session)
        today = moment(session).date()
        (day,) = trend.days(session, None, today)
    assert (day.day, day.images, day.allow, day.undecided, day.critical) == (today, 2, 1, 1, 2)


def test_projects_are_summed_for_whoever_sees_them(database: Database) -> None:
    record(database, "one", Verdict.WARN)
    record(database, "two", Verdict.WARN, project="shop")
    with database.session() as session:
        trend.note(session)
        today = moment(session).date()
        assert [day.warn for day in trend.days(session, None, today)] == [2]
        assert [day.warn for day in trend.days(session, frozenset({"shop"}), today)] == [1]
        assert trend.days(session, frozenset({"nobody"}), today) == []
        assert trend.days(session, None, today + timedelta(days=1)) == []


def test_an_empty_store_has_no_day(database: Database) -> None:
    with database.session() as session:
        trend.note(session)
        assert trend.days(session, None, moment(session).date()) == []
