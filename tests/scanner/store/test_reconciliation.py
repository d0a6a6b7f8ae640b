"""Found tags: of one registry, and only of the projects that may be seen."""

from __future__ import annotations

from scanner.config import Secret
from scanner.store import jobs, reconciliation, registries
from scanner.store.reconciliation import FoundKind
from scanner.store.schema import registry_poll
from scanner.store.session import Database
from tests.scanner.store import factories as make

KEY = Secret("a secret key for tests, long enough")


def test_found_tags_are_narrowed_to_a_registry(database: Database) -> None:
    digest = str(make.image().digest)
    with database.session() as session:
        made = {}
        for host, project in (("one.example.com", "shop"), ("two.example.com", "bank")):
            made[host] = registries.add(session, host, KEY, project=project).id
            job = jobs.request(session, jobs.POLL, made[host], "schedule")
            reconciliation.add(session, made[host], job, FoundKind.LOST, (f"{host}/cart", "1", digest))
    with database.read() as session:
        both = reconciliation.list_found_tags(session, None).items
        one = reconciliation.list_found_tags(session, None, registry_id=made["one.example.com"]).items
        hidden = reconciliation.list_found_tags(session, frozenset({"bank"}), registry_id=made["one.example.com"]).items
    assert [each.repository for each in both] == ["two.example.com/cart", "one.example.com/cart"]
    assert [each.repository for each in one] == ["one.example.com/cart"]
    assert hidden == ()


def test_a_clock_that_is_set_back_delays_no_poll(database: Database) -> None:
    with database.session() as session:
        registry = registries.add(session, "one.example.com", KEY).id
        reconciliation.put_settings(session, registry, 3600, (), ())
        assert reconciliation.due(session) == [registry]
        assert reconciliation.postpone(session, registry)
        assert reconciliation.due(session) == []
        session.execute(registry_poll.update().values(next_epoch=registry_poll.c.next_epoch + 86400))
        assert reconciliation.due(session) == [registry]
        assert reconciliation.postpone(session, registry)
        assert reconciliation.due(session) == []
