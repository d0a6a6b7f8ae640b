"""Scans as users request, cancel, repeat and replay them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError
from scanner.model.access import SCOPES
from scanner.model.actor import COMMAND_LINE
from scanner.model.audit import Action
from scanner.model.reference import Reference
from scanner.services import projects, registries, scans, webhooks
from scanner.store import audit, deliveries
from scanner.store import scans as stored
from tests.actors import ownerless, person
from tests.scanner.store.factories import REPOSITORY, request

KEY = Secret("a secret key for tests, long enough")
IMAGE = Reference.parse(f"{REPOSITORY}:1")
CONFINED = ownerless("ci", *SCOPES, projects=frozenset({"bank"}))


@pytest.fixture
def session(session: Connection) -> Connection:
    projects.create(session, COMMAND_LINE, "shop", patterns=["registry.example.com/shop/**"])
    projects.create(session, COMMAND_LINE, "bank")
    return session


def test_the_project_is_the_owner_of_the_repository(session: Connection) -> None:
    assert scans.project_of(session, COMMAND_LINE, None, IMAGE) == "shop"
    assert scans.project_of(session, COMMAND_LINE, "bank", IMAGE) == "bank"
    for asked in ("shop", "none"):
        with pytest.raises(NotFoundError, match="no such project"):
            scans.project_of(session, CONFINED, asked, IMAGE)


def test_who_sees_one_project_learns_nothing_of_the_owner(session: Connection) -> None:
    assert scans.project_of(session, CONFINED, None, IMAGE) == "bank"


def test_an_engine_that_does_not_exist_is_refused_with_those_that_do(session: Connection) -> None:
    with pytest.raises(NotFoundError) as refused:
        scans.request(session, COMMAND_LINE, request(engine="none"))
    assert refused.value.field == "engine"
    assert "trivy" in refused.value.hint


def test_an_idempotency_key_is_of_one_request_and_one_actor(session: Connection) -> None:
    asked = request(force=True)
    first, _ = scans.request(session, COMMAND_LINE, asked, idempotency_key="k")
    again, _ = scans.request(session, COMMAND_LINE, asked, idempotency_key="k")
    assert (again.scan_id, again.created) == (first.scan_id, False)
    with pytest.raises(ConflictError) as reused:
        scans.request(session, COMMAND_LINE, replace(asked, target=f"{REPOSITORY}:2"), idempotency_key="k")
    assert reused.value.reason == "idempotency_key_reused"
    other, _ = scans.request(session, person("ada"), replace(asked, target=f"{REPOSITORY}:2"), idempotency_key="k")
    assert other.scan_id != first.scan_id
    actions = [entry.action for entry in audit.list_entries(session).items]
    assert actions.count(Action.SCAN_REQUEST) == 2, "a request that leads to a known scan is not recorded again"


def test_a_scan_is_cancelled_while_it_waits_and_repeated_when_it_ended(session: Connection) -> None:
    ticket, _ = scans.request(session, COMMAND_LINE, request())
    with pytest.raises(ConflictError) as unfinished:
        scans.rescan(session, COMMAND_LINE, ticket.scan_id)
    assert unfinished.value.reason == "not_ended"
    assert scans.cancel(session, COMMAND_LINE, ticket.scan_id).state == "cancelled"
    with pytest.raises(ConflictError) as ended:
        scans.cancel(session, COMMAND_LINE, ticket.scan_id)
    assert ended.value.reason == "already_ended"
    repeated, view = scans.rescan(session, COMMAND_LINE, ticket.scan_id)
    assert (repeated.created, view.request.target) == (True, f"{REPOSITORY}:1")
    for work in (scans.cancel, scans.rescan):
        with pytest.raises(NotFoundError):
            work(session, CONFINED, repeated.scan_id)


def test_a_replay_repeats_what_ended_and_joins_what_did_not(session: Connection) -> None:
    registry = registries.add(session, COMMAND_LINE, KEY, "registry.example.com")
    hook, _ = webhooks.create(session, COMMAND_LINE, KEY, registry.id, "distribution", ["distribution"])
    delivery = deliveries.record(session, hook.id, "key", 2, "2 images")
    with pytest.raises(ConflictError) as nothing:
        scans.replay(session, COMMAND_LINE, delivery.id)
    assert nothing.value.reason == "nothing_to_replay"
    asked = [(f"hook:{n}", request(f"{REPOSITORY}:{n}")) for n in (1, 2)]
    ended, waiting = stored.request_all(session, asked, delivery_id=delivery.id)
    scans.cancel(session, COMMAND_LINE, ended.scan_id)
    replayed = {former.id: ticket for ticket, former in scans.replay(session, COMMAND_LINE, delivery.id)}
    assert replayed[ended.scan_id].created
    assert replayed[waiting.scan_id] == stored.Ticket(waiting.scan_id, created=False)
    with pytest.raises(NotFoundError):
        scans.replay(session, CONFINED, delivery.id)
