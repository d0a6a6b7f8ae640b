"""Polls and imports of a registry, as users configure, request and cancel them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError, RefusedError, UsageError
from scanner.model.access import SCOPES
from scanner.model.actor import COMMAND_LINE
from scanner.model.audit import Action
from scanner.services import reconciliation, registries
from scanner.store import audit, jobs, scans
from scanner.store import registries as stored
from scanner.store.schema import job as job_table
from tests.actors import ownerless

KEY = Secret("a secret key for tests, long enough")
HOST = "registry.example.com"
CONFINED = ownerless("ci", *SCOPES, projects=frozenset({"shop"}))


@pytest.fixture
def session(session: Connection) -> Connection:
    registries.add(session, COMMAND_LINE, KEY, HOST)
    return session


@pytest.fixture
def registry_id(session: Connection) -> str:
    (found,) = stored.list_registries(session)
    return found.id


@pytest.mark.parametrize(("text", "seconds"), [("off", 0), (" OFF ", 0), ("15m", 900), ("1h", 3600), ("7d", 604800)])
def test_an_interval(text: str, seconds: int) -> None:
    assert reconciliation.interval(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1", "-1h", "1h30"])
def test_what_is_no_interval_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        reconciliation.interval(text)
    assert (refused.value.field, "15m" in refused.value.hint) == ("interval", True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1 h 30 min"), (48 * 3600, "2 d 0 h")],
)
def test_a_duration_for_people(seconds: int, text: str) -> None:
    assert reconciliation.duration(seconds) == text


def test_what_is_not_given_stays(session: Connection, registry_id: str) -> None:
    reconciliation.change(session, COMMAND_LINE, registry_id, seconds=3600, include=["shop/**"])
    reconciliation.change(session, COMMAND_LINE, registry_id, exclude=["shop/old"])
    found = reconciliation.change(session, COMMAND_LINE, registry_id, seconds=0)
    assert (found.seconds, list(found.include), list(found.exclude)) == (0, ["shop/**"], ["shop/old"])


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"seconds": 299}, "interval"),
        ({"seconds": 604801}, "interval"),
        ({"include": ["a"] * 51}, "include"),
        ({"exclude": ["x" * 5000]}, "exclude"),
        ({"include": [""]}, "include"),
    ],
)
def test_a_mistake_names_its_field(session: Connection, registry_id: str, given: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        reconciliation.change(session, COMMAND_LINE, registry_id, **given)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "work",
    [
        lambda s, r: reconciliation.change(s, CONFINED, r, seconds=0),
        lambda s, r: reconciliation.poll(s, CONFINED, r),
        lambda s, r: reconciliation.start_import(s, CONFINED, r),
        lambda s, r: reconciliation.cancel_import(s, CONFINED, r),
    ],
)
def test_it_takes_access_to_all_projects(
    session: Connection, registry_id: str, work: Callable[[Connection, str], object]
) -> None:
    with pytest.raises(RefusedError, match="access to all projects"):
        work(session, registry_id)


def test_a_poll_that_the_registry_delayed_is_not_hastened(session: Connection, registry_id: str) -> None:
    """It answered with Retry-After. A user who presses the button again must not override that."""
    first = reconciliation.poll(session, COMMAND_LINE, registry_id)
    where = job_table.c.id == first.id
    held = {**first.parameters, "held": True}
    session.execute(job_table.update().where(where).values(parameters=held, next_at=2e12))
    again = reconciliation.poll(session, COMMAND_LINE, registry_id)
    assert again.id == first.id
    assert session.execute(job_table.select().where(where)).one().next_at == 2e12
    session.execute(job_table.update().where(where).values(parameters=dict(first.parameters)))
    reconciliation.poll(session, COMMAND_LINE, registry_id)
    assert session.execute(job_table.select().where(where)).one().next_at < 2e12
    last = reconciliation.last_poll(session, COMMAND_LINE, registry_id)
    assert last is not None and last.id == first.id


def test_polls_that_are_due_are_requested_once(session: Connection, registry_id: str) -> None:
    assert reconciliation.schedule(session) == 0
    reconciliation.change(session, COMMAND_LINE, registry_id, seconds=3600)
    assert reconciliation.schedule(session) == 1
    assert reconciliation.schedule(session) == 0


def test_a_count_gives_way_to_an_import_and_an_import_to_nothing(session: Connection, registry_id: str) -> None:
    assert reconciliation.last_import(session, COMMAND_LINE, registry_id) is None
    with pytest.raises(NotFoundError, match="never imported"):
        reconciliation.cancel_import(session, COMMAND_LINE, registry_id)
    count = reconciliation.start_import(session, COMMAND_LINE, registry_id, dry_run=True)
    running = reconciliation.start_import(session, COMMAND_LINE, registry_id, include=["shop/**"])
    assert (count.phase, running.phase, running.seconds_left) == ("counting", "counting", None)
    assert jobs.get(session, count.id).state.terminal
    with pytest.raises(ConflictError) as refused:
        reconciliation.start_import(session, COMMAND_LINE, registry_id)
    assert refused.value.reason == "in_progress"
    assert reconciliation.cancel_import(session, COMMAND_LINE, registry_id).phase == "ended"
    with pytest.raises(ConflictError) as ended:
        reconciliation.cancel_import(session, COMMAND_LINE, registry_id)
    assert ended.value.reason == "already_ended"
    actions = [entry.action for entry in audit.list_entries(session).items]
    assert actions.count(Action.REGISTRY_IMPORT) == 1, "a count changes nothing and is not recorded"
    assert scans.list_scans(session, None).items == ()
