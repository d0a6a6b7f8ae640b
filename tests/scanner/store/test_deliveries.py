"""Deliveries of webhooks: people send many tests while they set a webhook up."""

from __future__ import annotations

import sqlalchemy as sa

from scanner.config import Secret
from scanner.store import deliveries, registries
from scanner.store.schema import delivery
from scanner.store.session import Database

KEY = Secret("a secret key for tests, long enough")


def test_of_test_deliveries_the_newest_is_kept(database: Database) -> None:
    with database.session() as session:
        registry = registries.add(session, "mine.io", KEY)
        hook = deliveries.create_hook(session, "pushes", "harbor", registry.id, KEY)[0]
        deliveries.record_test(session, hook, "the secret is wrong")
        former = session.execute(sa.select(delivery.c.received_at)).scalar_one()
        deliveries.record_test(session, hook, "it works")
        rows = session.execute(sa.select(delivery.c.outcome, delivery.c.received_at)).all()
    assert [row.outcome for row in rows] == ["it works"]
    assert rows[0].received_at >= former
