"""Secrets at rest, and the rooms that keep them: never readable from the database alone, never in another row."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from scanner.config import Secret
from scanner.errors import ScannerError
from scanner.store import deliveries, registries
from scanner.store.schema import registry, webhook
from scanner.store.secrets import seal, unseal
from scanner.store.session import Database
from tests.scanner.store import factories
from tests.scanner.store.together import together, transact

KEY = Secret("k" * 40)
CANARY = "canary-3f1c"


def test_a_sealed_value_opens_only_in_its_place_with_its_key() -> None:
    sealed = seal(Secret(CANARY), KEY, "registry|1|password")
    assert unseal(sealed, KEY, "registry|1|password").reveal() == CANARY
    assert CANARY.encode() not in sealed
    for place, key, data in (
        ("registry|2|password", KEY, sealed),
        ("registry|1|password", Secret("x" * 40), sealed),
        ("registry|1|password", KEY, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        ("registry|1|password", KEY, bytes([sealed[0] ^ 1]) + sealed[1:]),
    ):
        with pytest.raises(ScannerError) as refused:
            unseal(data, key, place)
        assert refused.value.reason == "secret_unreadable"
        assert CANARY not in str(refused.value)


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    assert seal(Secret(CANARY), KEY, "p") != seal(Secret(CANARY), KEY, "p")


def test_a_registry_password_copied_to_another_row_does_not_open(database: Database) -> None:
    with database.session() as session:
        mine = registries.add(session, "mine.io", KEY, username="u", password=Secret(CANARY))
        other = registries.add(session, "other.io", KEY)
        sealed = session.execute(sa.select(registry.c.password).where(registry.c.id == mine.id)).scalar_one()
        session.execute(registry.update().where(registry.c.id == other.id).values(password=sealed))
    with database.read() as session:
        assert registries.password(session, mine.id, KEY) == Secret(CANARY)
        with pytest.raises(ScannerError):
            registries.password(session, other.id, KEY)
        assert CANARY not in repr(registries.list_(session))


def test_a_webhooks_secret_is_shown_once(database: Database) -> None:
    with database.session() as session:
        home = registries.add(session, "mine.io", KEY, aliases=["localhost:5000"])
        _, shown = deliveries.create_hook(session, "push", "harbor", home.id, KEY)
    with database.read() as session:
        (hook,) = deliveries.hooks(session, "harbor", KEY)
        assert hook.secrets == (shown,)
        assert (hook.host, hook.aliases) == ("mine.io", ("localhost:5000",))
        assert shown.reveal() not in repr(hook)
        assert shown.reveal().encode() not in session.execute(sa.select(webhook.c.secret)).scalar_one()
        assert deliveries.hooks(session, "quay", KEY) == ()


def test_a_delivery_is_recorded_once_however_often_it_comes(database: Database) -> None:
    """W1: the same delivery twelve times, at once."""
    with database.session() as session:
        home = registries.add(session, "mine.io", KEY)
        hook, _ = deliveries.create_hook(session, "push", "harbor", home.id, KEY)
    told = together(12, lambda _: transact(database, lambda s: deliveries.record(s, hook, "delivery-1", 1, "ok")))
    assert len({d.id if isinstance(d, deliveries.Delivery) else d for d in told}) == 1
    assert sum(d.created for d in told if isinstance(d, deliveries.Delivery)) == 1


def test_the_same_event_again_leads_to_the_same_scan(database: Database) -> None:
    from scanner.store import scans

    with database.session() as session:
        home = registries.add(session, "mine.io", KEY)
        hook, _ = deliveries.create_hook(session, "push", "harbor", home.id, KEY)

    def deliver(number: int) -> str:
        with database.session() as session:
            delivery = deliveries.record(session, hook, f"delivery-{number}", 1, "ok")
            asked = factories.request(force=True)
            return scans.request(session, asked, delivery_id=delivery.id, idempotency_key="hook:event").scan_id

    (scan_id,) = set(together(8, deliver))
    with database.read() as session:
        assert [one.scans for one in deliveries.list_(session, None).items] == [(scan_id,)] * 8
        assert deliveries.list_(session, frozenset({"foreign"})).items == ()
