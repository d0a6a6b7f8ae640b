"""Decisions that something has passed over are made anew by themselves, so that lists say what the gate would."""

from __future__ import annotations

import sqlalchemy as sa

from scanner import catalog
from scanner.model.finding import Severity
from scanner.policy.evaluate import evidence_digest
from scanner.services import decisions
from scanner.store import gate, images, listings, policies, scans
from scanner.store.schema import decision
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.api.test_gate import policy

PACKAGE = make.package(1)
FOUND = make.report(
    "bad", packages=[PACKAGE], vulnerabilities=[make.vulnerability(1, PACKAGE, severity=Severity.CRITICAL)]
)


def recorded(database: Database) -> None:
    with database.session() as session:
        policies.put(session, "all", policy(), "test")
        scans.request(session, make.request())
        held = scans.claim(session, "w", ["push"], 60)
        assert held is not None
        made = decisions.decide_all(session, FOUND, catalog.known_names(), catalog.remedies())
        images.record(session, held, FOUND, evidence_digest(FOUND), made)


def refresh(database: Database) -> int:
    return decisions.refresh(database, catalog.known_names(), catalog.remedies(), seconds=30)


def listed(database: Database) -> listings.ListedImage:
    with database.read() as session:
        (item,) = listings.list_images(session, None).items
    return item


def test_a_changed_policy_reaches_the_list_and_the_time_of_the_scan_stays(database: Database) -> None:
    recorded(database)
    before = listed(database)
    assert before.verdict == "deny"
    assert refresh(database) == 0  # nothing is overdue
    with database.session() as session:
        policies.put(session, "all", policy(action="warn"), "test")
        gate.invalidate(session)
    assert refresh(database) == 1
    after = listed(database)
    assert (after.verdict, after.scanned_at) == ("warn", before.scanned_at)
    assert refresh(database) == 0


def test_a_decision_for_an_environment_that_no_policy_names_any_more_is_made_once(database: Database) -> None:
    recorded(database)
    with database.session() as session:
        policies.put(session, "more", policy("more", environments="old"), "test")
        made = decisions.decide_all(session, FOUND, catalog.known_names(), catalog.remedies())
        images.redecide(session, evidence_digest(FOUND).hex, FOUND, made, "default")
        policies.enable(session, "more", False)
        gate.invalidate(session)
    assert refresh(database) == 2
    assert refresh(database) == 0


def test_two_workers_do_not_make_it_twice(database: Database) -> None:
    recorded(database)
    with database.session() as session:
        gate.invalidate(session)
        (overdue,) = images.stale(session, limit=5)
    assert refresh(database) == 1
    with database.session() as session:
        assert images.claim_stale(session, overdue) is False
        assert session.execute(sa.select(sa.func.count()).select_from(decision)).scalar_one() == 2
