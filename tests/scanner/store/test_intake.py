"""Deliveries in groups: what they write, what they repeat, and that none affects its neighbours."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from scanner.config import Secret
from scanner.errors import NotFoundError
from scanner.model.scan import ScanState
from scanner.store import deliveries, intake, projects, registries, scans
from scanner.store.schema import delivery, delivery_scan, idempotency, scan, webhook
from scanner.store.session import Database
from tests.scanner.store import factories
from tests.scanner.store.together import together

KEY = Secret("a secret key for tests, long enough")
OWN = {"id", "key", "scan_id", "delivery_id", "request_key", "target"}  # columns that differ from row to row
TIMES = {"received_at", "created_at", "created_epoch", "kicked_epoch", "next_at"}


@pytest.fixture
def hook(database: Database) -> str:
    with database.session() as session:
        registry = registries.add(session, "mine.io", KEY, aliases=["localhost:5000"])
        return deliveries.create_hook(session, "push's", "harbor", registry.id, KEY)[0]


def arrival(hook: str, number: int, *targets: str, **more: Any) -> intake.Arrival:
    asked = [
        (f"hook:{hook}:{number}-{place}", factories.request(target))
        for place, target in enumerate(targets or (f"mine.io/shop/cart:{number}",))
    ]
    return replace(intake.Arrival(hook, f"delivery-{number}", len(asked), "1 images", tuple(asked)), **more)


def rows(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    with database.read() as session:
        return [dict(row._mapping) for row in session.execute(sa.select(table))]


def test_a_group_writes_the_rows_that_a_single_delivery_writes(database: Database, hook: str) -> None:
    """All columns, so that a new one cannot be forgotten. Refused events are not written by a group."""
    own = intake.Intake(database, KEY)
    known = own.known()
    refused = (deliveries.RefusedEvent("invalid", "unreadable"),)
    grouped = own.record(known, arrival(hook, 1))
    alone = own.record(known, arrival(hook, 2, refused=refused))
    assert [ticket.created for ticket in (*grouped.tickets, *alone.tickets)] == [True, True]
    for table in (delivery, scan, idempotency, delivery_scan):
        first, second = rows(database, table)
        for one in (first, second):
            one.pop("refused", None)
        assert {n: v for n, v in first.items() if n not in OWN | TIMES} == {
            n: v for n, v in second.items() if n not in OWN | TIMES
        }
        for name in TIMES & first.keys():
            assert type(first[name]) is type(second[name])
            assert first[name] <= second[name]
    with database.read() as session:
        (view,) = [v for v in deliveries.list_deliveries(session, None).items if v.id == grouped.delivery_id]
        assert (view.scans, view.refused) == ((grouped.tickets[0].scan_id,), ())
        assert scans.get(session, view.scans[0]).state is ScanState.QUEUED


def test_deliveries_at_once_are_all_recorded(database: Database, hook: str) -> None:
    own = intake.Intake(database, KEY)
    known = own.known()
    told = together(12, lambda number: own.record(known, arrival(hook, number)))
    found = [one for one in told if isinstance(one, intake.RecordedDelivery)]
    assert len(found) == 12, told
    assert {one.delivery_id for one in found} == {row["id"] for row in rows(database, delivery)}
    assert {one.tickets[0].scan_id for one in found} == {row["id"] for row in rows(database, scan)}


def test_a_delivery_that_fails_does_not_affect_its_neighbours(database: Database, hook: str) -> None:
    """One of the group breaks a foreign key: the database refuses the whole transaction."""
    own = intake.Intake(database, KEY)
    known = own.known()

    def deliver(number: int) -> intake.RecordedDelivery:
        return own.record(known, arrival("no such webhook" if number == 2 else hook, number))

    told = together(5, deliver)
    assert [type(one) for one in told] == [
        intake.RecordedDelivery,
        intake.RecordedDelivery,
        NotFoundError,
        *2 * [intake.RecordedDelivery],
    ]
    assert len(rows(database, delivery)) == len(rows(database, scan)) == 4


def test_a_repeated_delivery_has_the_scans_of_the_first(database: Database, hook: str) -> None:
    own = intake.Intake(database, KEY)
    known = own.known()
    first = own.record(known, arrival(hook, 1, "mine.io/a:1", "mine.io/b:1"))
    again = together(6, lambda _: own.record(known, arrival(hook, 1, "mine.io/a:1", "mine.io/b:1")))
    for one in again:
        assert isinstance(one, intake.RecordedDelivery), one
        assert one.delivery_id == first.delivery_id
        assert [t.scan_id for t in one.tickets] == [t.scan_id for t in first.tickets]
        assert not any(t.created for t in one.tickets)


def test_two_deliveries_of_one_image_in_a_group_share_its_scan(database: Database, hook: str) -> None:
    own = intake.Intake(database, KEY)
    known = own.known()
    told = together(6, lambda number: own.record(known, arrival(hook, number, "mine.io/shop:1")))
    found = [one for one in told if isinstance(one, intake.RecordedDelivery)]
    assert len(found) == 6, told
    assert len({one.tickets[0].scan_id for one in found}) == 1
    assert sum(one.tickets[0].created for one in found) == 1
    assert len(rows(database, delivery)) == len(rows(database, delivery_scan)) == 6


@pytest.mark.parametrize("together_with", [0, 3])
def test_a_delivery_that_names_an_image_twice_is_recorded(database: Database, hook: str, together_with: int) -> None:
    """A registry sends two pushes of one image in an envelope. By itself it was answered 500, again and again."""
    own = intake.Intake(database, KEY)
    known = own.known()
    twice = ("mine.io/twice:1", "mine.io/twice:1", "mine.io/other:1")
    told = together(1 + together_with, lambda n: own.record(known, arrival(hook, n, *(twice if n == 0 else ()))))
    assert isinstance(told[0], intake.RecordedDelivery), told
    first, second, other = (ticket.scan_id for ticket in told[0].tickets)
    assert first == second != other
    assert len(rows(database, delivery)) == 1 + together_with
    assert len(rows(database, scan)) == 2 + together_with


def test_an_event_known_from_another_delivery_does_not_become_two_scans(database: Database, hook: str) -> None:
    """The other events of the delivery are new, and none may be lost."""
    own = intake.Intake(database, KEY)
    known = own.known()
    first = own.record(known, arrival(hook, 1, "mine.io/a:1"))
    both = arrival(hook, 2, "mine.io/a:1", "mine.io/b:1")
    both = replace(both, asked=(arrival(hook, 1, "mine.io/a:1").asked[0], both.asked[1]))
    second = own.record(known, both)
    assert [ticket.created for ticket in second.tickets] == [False, True]
    assert second.tickets[0].scan_id == first.tickets[0].scan_id


@pytest.mark.parametrize("refused", [(), (deliveries.RefusedEvent("invalid", "unreadable"),)])
@pytest.mark.parametrize("change", ["disabled", "secret", "alias", "project"])
def test_what_has_changed_is_read_again_before_anything_is_written(
    database: Database, hook: str, change: str, refused: tuple[deliveries.RefusedEvent, ...]
) -> None:
    own = intake.Intake(database, KEY)
    known = own.known()
    assert own.remembered() is own.known() is known
    with database.session() as session:
        if change == "disabled":
            deliveries.disable_hook(session, hook, True)
        elif change == "secret":
            deliveries.add_secret(session, hook, KEY)
        elif change == "alias":
            registries.update(session, registries.list_registries(session)[0].id, KEY, aliases=["other:5000"])
        else:
            projects.create(session, "shop", patterns=["mine.io/shop/*"], engine="trivy")
    with pytest.raises(intake.OutdatedState):
        own.record(known, arrival(hook, 1, refused=refused))
    assert not any(rows(database, table) for table in (delivery, scan, idempotency))
    now = own.known()
    assert own.record(now, arrival(hook, 1, refused=refused)).tickets[0].created
    with database.read() as session:
        assert now.hooks("harbor") == deliveries.hooks(session, "harbor", KEY)
    assert now.hooks("quay") == ()
    expected = ("shop", {"shop": "trivy"}) if change == "project" else ("default", {})
    assert (now.owner("mine.io/shop/cart"), now.engines) == expected


def test_one_unreadable_secret_closes_its_own_format_only(database: Database, hook: str) -> None:
    with database.session() as session:
        registry = registries.list_registries(session)[0]
        other = deliveries.create_hook(session, "q", "quay", registry.id, KEY)[0]
        session.execute(webhook.update().where(webhook.c.id == hook).values(secret=b"broken"))
    assert [one.id for one in intake.Intake(database, KEY).known().hooks("quay")] == [other]


# SQLite has no server that could end a connection.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_that_the_server_ended_loses_nothing(database: Database, hook: str) -> None:
    own = intake.Intake(database, KEY)
    known = own.known()
    with database.session() as session:
        session.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
                "datname = current_database()"
            )
        )
    assert own.record(known, arrival(hook, 1)).tickets[0].created
    assert len(rows(database, scan)) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_is_locked_refuses_a_group_once(database: Database, hook: str) -> None:
    """Each delivery of the group learns of it, and nobody waits for the lock again, one after the other."""
    own = intake.Intake(database, KEY)
    known = own.known()
    own.record(known, arrival(hook, 0))
    own.cursor().execute("PRAGMA busy_timeout = 50")
    group = [waiting(own, known, arrival(hook, number)) for number in (1, 2, 3)]
    with database.session() as session:
        session.execute(webhook.update().values(name="x"))  # holds the lock
        own._settle(group)
    assert [getattr(entry.outcome, "reason", "") for entry in group] == 3 * ["db_busy"]
    assert len(rows(database, delivery)) == 1
    with database.session() as session:
        session.execute(webhook.update().values(name="push's"))
    assert own.record(own.known(), arrival(hook, 1)).tickets[0].created


def test_a_bug_is_answered_and_later_deliveries_are_written(
    database: Database, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = intake.Intake(database, KEY)
    known = own.known()
    with monkeypatch.context() as patched:
        patched.setattr(own, "_write", lambda group: {}["bug"])
        with pytest.raises(KeyError):
            own.record(known, arrival(hook, 1))
    assert own.record(known, arrival(hook, 1)).tickets[0].created


def test_a_sender_that_cannot_be_answered_stops_no_other(database: Database, hook: str) -> None:
    own = intake.Intake(database, KEY)
    known = own.known()
    own.submit(known, arrival(hook, 1), lambda outcome: {}["bug"])
    assert own.record(known, arrival(hook, 2)).tickets[0].created
    assert len(rows(database, delivery)) == 2


def test_a_machine_without_a_free_thread_refuses_one_delivery(
    database: Database, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    own = intake.Intake(database, KEY)
    known = own.known()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError):
            own.record(known, arrival(hook, 1))
    assert own.record(known, arrival(hook, 2)).tickets[0].created
    assert len(rows(database, delivery)) == 1


def test_a_group_is_bounded_and_the_next_one_takes_the_rest(
    database: Database, hook: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MAX_SCANS", 3)
    own = intake.Intake(database, KEY)
    known = own.known()
    own._waiting.extend(waiting(own, known, arrival(hook, n, f"mine.io/a:{n}", f"mine.io/b:{n}")) for n in range(3))
    own._waiting.append(waiting(own, known, arrival(hook, 3, *(f"mine.io/c:{n}" for n in range(9)))))
    assert [len(own._next()) for _ in range(4)] == [1, 1, 1, 1]
    assert not own._waiting


def waiting(own: intake.Intake, known: intake.KnownState, told: intake.Arrival) -> intake._Entry:
    return intake._entry(told, known, lambda outcome: None, lambda: 0)


_LARGE = (delivery.name, scan.name, idempotency.name, delivery_scan.name)


@pytest.mark.parametrize("state", [ScanState.QUEUED, ScanState.RUNNING])
def test_the_intake_reads_large_tables_by_an_index_only(database: Database, hook: str, state: ScanState) -> None:
    """A scan of one of them would make each delivery slower than the one before.

    So would the index of ready scans, which PostgreSQL prefers while its statistics say that none is queued.
    """
    own = intake.Intake(database, KEY)
    known = own.known()
    for number in range(30):
        own.record(known, arrival(hook, number))
    with database.session() as session:
        session.execute(scan.update().values(state=state))
    told, asked = intake._rows([waiting(own, known, arrival(hook, 100))])
    values = {"told": json.dumps(told), "asked": json.dumps(asked), "known": known.digest}
    if database.is_sqlite:
        explained = own.cursor().execute(f"EXPLAIN QUERY PLAN {intake._SQLITE_REPEATED}", values).fetchall()
        steps = [row[-1] for row in explained]
        read = [step for step in steps if step.startswith("SCAN")]
        looked_up = [step for step in steps if step.startswith("SEARCH")]
    else:
        own.cursor().execute("ANALYZE")
        # Small tables are cheaper to read as a whole. Then only a plan that cannot use an index reads one.
        own.cursor().execute("SET enable_seqscan = off")
        explained = own.cursor().execute(f"EXPLAIN {intake._POSTGRESQL}", values).fetchall()
        steps = [row[0].strip() for row in explained]
        read = [step for step in steps if "Seq Scan" in step]
        looked_up = [step for step in steps if "Index" in step and "Scan" in step]
    for table in _LARGE:
        assert not [step for step in read if re.search(rf"\b{table}\b", step)], steps
    # d, i and s are the aliases of the tables in the statement.
    for alias in ("d", "i", "s"):
        assert not [step for step in read if re.search(rf"\b{alias}\b", step.partition("(")[0])], steps
        assert [step for step in looked_up if re.search(rf"\b{alias}\b", step.partition("(")[0])], steps
    assert any("ux_scan_request_key" in step for step in looked_up), steps
    assert not any("ix_scan_ready" in step for step in looked_up), steps
