"""Outdated decisions: renewed once, by one of several workers."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from scanner import catalog
from scanner.services import decisions
from scanner.store.schema import decision, verdict
from scanner.store.session import Database
from tests.scanner.services.interleaved import Interleaved
from tests.scanner.store import factories as make
from tests.scanner.store import recorded


@pytest.fixture
def database(database: Database) -> Database:
    recorded.record(database, make.report(packages=[make.package(1)]))
    with database.session() as session:
        session.execute(verdict.update().values(valid_until=0.0))
    return database


def refreshed(database: Database, seconds: float = 60.0) -> int:
    return decisions.refresh(database, catalog.known_names(), catalog.remedies(), seconds=seconds)


def test_a_decision_is_renewed_by_one_worker(database: Database, url: str) -> None:
    assert refreshed(database, 0.0) == 0, "no time, no work"
    other = Interleaved(url)
    renewed = list[int]()
    other.meanwhile = lambda: renewed.append(refreshed(database))
    try:
        assert refreshed(other) == 0
    finally:
        other.engine.dispose()
    assert renewed == [1]
    with database.read() as session:
        own = sa.select(sa.func.count()).select_from(decision).where(decision.c.environment == "")
        assert session.execute(own).scalar_one() == 2, "the former one and one new one"
    assert refreshed(database) == 0
