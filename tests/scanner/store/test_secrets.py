"""Secrets at rest, and the rooms that keep them: never readable from the database alone, never in another row."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from scanner.config import KeyRing, Secret
from scanner.errors import ScannerError
from scanner.store import accounts, deliveries, registries
from scanner.store.schema import metadata, registry, webhook
from scanner.store.secrets import FIELDS, reseal, seal, under_another, unseal
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
        assert CANARY not in repr(registries.list_registries(session))


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
        assert [one.scans for one in deliveries.list_deliveries(session, None).items] == [(scan_id,)] * 8
        assert deliveries.list_deliveries(session, frozenset({"foreign"})).items == ()


# Another key

NEW = Secret("n" * 40)
RING = KeyRing(NEW, KEY)


def sealed_under(database: Database, key: Secret, count: int = 5) -> list[str]:
    with database.session() as session:
        made = [
            registries.add(session, f"r{n}.io", key, username="u", password=Secret(f"{CANARY}-{n}"))
            for n in range(count)
        ]
        for view in made[:2]:
            deliveries.create_hook(session, "push", "harbor", view.id, key)
        registries.add(session, "open.io", key)
    return [view.id for view in made]


def readable(database: Database, ids: list[str], key: Secret) -> bool:
    with database.read() as session:
        deliveries.hooks(session, "harbor", key)
        return all(registries.password(session, i, key) == Secret(f"{CANARY}-{n}") for n, i in enumerate(ids))


def test_every_sealed_column_moves_when_the_key_does() -> None:
    kept = {
        ("report", "body"),  # evidence
        ("package", "matches"),
        ("trust_state", "state"),
        ("running_workload", "facts"),
        ("running_workload", "results"),
    }
    binary = {(t.name, c.name) for t in metadata.sorted_tables for c in t.c if isinstance(c.type, sa.LargeBinary)}
    moved = {(table.name, field) for table, field in FIELDS}
    assert moved <= binary
    unknown = binary - moved - kept
    assert not unknown, (
        f"a sealed column belongs into scanner.store.secrets.FIELDS, any other into this test: {unknown}"
    )


def test_secrets_move_to_another_key_a_few_at_a_time_and_stay_readable(database: Database) -> None:
    ids = sealed_under(database, KEY)
    steps = 0
    while True:
        assert readable(database, ids, RING)
        with database.session() as session:
            if not reseal(session, RING, limit=2):
                break
        steps += 1
    assert steps == 4  # five passwords and two webhooks
    assert readable(database, ids, NEW)
    with database.read() as session, pytest.raises(ScannerError) as refused:
        registries.password(session, ids[0], KEY)
    assert refused.value.reason == "secret_unreadable"
    assert "dockwarden secrets" in refused.value.hint


def test_moving_can_be_broken_off_and_done_by_several_at_once(database: Database) -> None:
    ids = sealed_under(database, KEY, 12)
    with database.engine.connect() as connection:
        assert reseal(connection, RING, limit=5) == 5
        connection.rollback()
    with database.read() as session:
        assert under_another(session, RING) == 14  # nothing moved
    together(4, lambda _: transact(database, lambda s: reseal(s, RING, limit=50)))
    with database.session() as session:
        assert reseal(session, RING) == 0
        assert under_another(session, RING) == 0
    assert readable(database, ids, NEW)


def test_a_secret_that_is_written_meanwhile_is_not_overwritten(database: Database) -> None:
    ids = sealed_under(database, KEY, 1)
    with database.session() as session:
        registries.update(session, ids[0], RING, password=Secret("newer"))
        reseal(session, RING)
    with database.read() as session:
        assert registries.password(session, ids[0], NEW) == Secret("newer")


def test_without_the_former_key_nothing_is_lost_and_the_row_is_named(database: Database) -> None:
    ids = sealed_under(database, KEY, 1)
    with pytest.raises(ScannerError, match=rf"registry\|{ids[0]}\|password") as refused, database.session() as session:
        reseal(session, NEW)
    assert CANARY not in str(refused.value)
    assert readable(database, ids, KEY)


def test_tokens_and_sessions_outlive_the_change_and_move_when_they_are_used(database: Database) -> None:
    with database.session() as session:
        view, text = accounts.create_token(session, "ci", ["gate"], KEY)
        user = accounts.create_user(session, "ada", "correct horse battery", "viewer")
        cookie = accounts.begin_session(session, KEY, user_id=user.id)
    with database.session() as session:
        assert accounts.find_token(session, text.reveal(), RING) is not None
        assert accounts.find_token(session, text.reveal(), NEW) is None
        assert accounts.find_session(session, cookie.reveal(), RING) is not None
        accounts.touch_token(session, view.id, accounts.hash_token(text.reveal(), RING))
    with database.session() as session:
        assert accounts.find_token(session, text.reveal(), NEW) is not None
        accounts.end_session(session, cookie.reveal(), RING)
        assert accounts.find_session(session, cookie.reveal(), RING) is None
