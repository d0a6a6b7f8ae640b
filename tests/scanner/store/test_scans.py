"""The state machine: who may move a scan, what is counted, and what happens when several try at once."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from scanner.errors import LeaseLost, NotFoundError, UsageError
from scanner.model.scan import Lane, Progress, ScanState, Stage
from scanner.store import images, listings, scans
from scanner.store.schema import scan, scan_attempt
from scanner.store.session import Database, epoch
from tests.scanner.store import factories
from tests.scanner.store.together import together, transact

LANES = ("gate", "push", "background")
DIGEST = factories.image().digest


def ask(database: Database, target: str = "", **more: object) -> str:
    asked = factories.request(target, **more) if target else factories.request(**more)  # type: ignore[arg-type]
    return transact(database, lambda s: scans.request(s, asked)).scan_id


def take(database: Database, lanes: tuple[str, ...] = LANES) -> scans.Claim:
    held = transact(database, lambda s: scans.claim(s, "worker", lanes, 60))
    assert held is not None
    return held


def record(database: Database, held: scans.Claim) -> None:
    found = factories.report()
    with database.session() as session:
        images.record(session, held, found, factories.evidence(found), [factories.decided(found)])


def show(database: Database, scan_id: str) -> scans.ScanView:
    with database.read() as session:
        return scans.get(session, scan_id)


def set_(database: Database, **values: object) -> None:
    """Time that passes, as the database would see it."""
    with database.session() as session:
        session.execute(scan.update().where(scan.c.state.in_(["queued", "running", "retry_wait"])).values(**values))


@pytest.fixture(autouse=True)
def _invariants(database: Database) -> object:
    yield
    with database.read() as session:
        assert scans.invariants(session) == []


# Asking


def test_the_same_request_joins_while_it_is_queued(database: Database) -> None:
    first, second = ask(database), ask(database)
    assert first == second
    take(database)
    assert ask(database) != first  # it has read the tag already; the tag may have moved since


def test_a_forced_request_joins_nothing(database: Database) -> None:
    assert ask(database, force=True) != ask(database, force=True)


def test_whoever_waits_hurries_what_they_join(database: Database) -> None:
    scan_id = ask(database, lane=Lane.BACKGROUND)
    assert ask(database, lane=Lane.GATE) == scan_id
    assert take(database, ("gate",)).scan_id == scan_id


def test_a_project_never_joins_anothers_request(database: Database) -> None:
    assert ask(database, project="a") != ask(database, project="b")


@pytest.mark.parametrize("force", [False, True])
def test_fifty_at_once_with_one_key_are_one_scan(database: Database, force: bool) -> None:
    asked = factories.request(force=force)
    tickets = together(50, lambda _: transact(database, lambda s: scans.request(s, asked, idempotency_key="k")))
    assert {t.scan_id if isinstance(t, scans.Ticket) else t for t in tickets} == {show_only(database).id}


def test_fifty_at_once_without_a_key_are_one_scan(database: Database) -> None:
    tickets = together(50, lambda _: transact(database, lambda s: scans.request(s, factories.request())))
    assert [t for t in tickets if isinstance(t, Exception)] == []
    assert sum(t.created for t in tickets if isinstance(t, scans.Ticket)) == 1
    show_only(database)


def show_only(database: Database) -> scans.ScanView:
    with database.read() as session:
        (only,) = scans.list_scans(session, None).items
    return only


# Claiming


def test_whoever_waits_is_served_first(database: Database) -> None:
    for lane in (Lane.BACKGROUND, Lane.PUSH, Lane.GATE):
        ask(database, f"h.io/{lane}:1", lane=lane)
    assert [take(database).request.lane for _ in range(3)] == [Lane.GATE, Lane.PUSH, Lane.BACKGROUND]


def test_a_claim_takes_exactly_one(database: Database) -> None:
    """PostgreSQL ran the subquery of the claim once per row and took several: they ran without a worker."""
    for number in range(60):
        ask(database, f"h.io/r{number}:1")

    def work(number: int) -> list[str]:
        taken = []
        while held := transact(database, lambda s: scans.claim(s, f"w{number}", LANES, 60)):
            taken.append(held.scan_id)
        return taken

    lists = together(6, work)
    taken = [scan_id for one in lists if isinstance(one, list) for scan_id in one]
    assert len(taken) == len(set(taken)) == 60


def test_what_kills_workers_runs_alone(database: Database) -> None:
    for number in range(4):
        ask(database, f"h.io/r{number}:1")
    set_(database, lane="quarantine")
    claims = together(4, lambda n: transact(database, lambda s: scans.claim(s, f"w{n}", ("background",), 60)))
    (held,) = [one for one in claims if isinstance(one, scans.Claim)]
    assert transact(database, lambda s: scans.claim(s, "w", ("gate", "push"), 60)) is None
    transact(database, lambda s: scans.fail(s, held, "scan_timeout", "took too long"))
    assert transact(database, lambda s: scans.claim(s, "w", ("background",), 60)) is not None


def test_nothing_is_claimed_before_its_time_or_from_another_lane(database: Database) -> None:
    ask(database)
    assert transact(database, lambda s: scans.claim(s, "w", ("gate",), 60)) is None
    with database.session() as session:
        session.execute(scan.update().values(next_at=scan.c.next_at + 100))
    assert transact(database, lambda s: scans.claim(s, "w", LANES, 60)) is None


# Under the fence


@pytest.mark.parametrize("what", ["heartbeat", "settle", "record", "fail", "retry"])
def test_who_lost_the_lease_writes_nothing(database: Database, what: str) -> None:
    scan_id = ask(database)
    zombie = take(database)
    set_(database, lease_until=0.0)
    transact(database, scans.sweep)
    take(database)  # the new owner
    before = show(database, scan_id)
    late = {
        "heartbeat": lambda s: scans.heartbeat(s, zombie, 60, Progress(Stage.SCAN)),
        "settle": lambda s: scans.settle(s, zombie, DIGEST, "a"),
        "fail": lambda s: scans.fail(s, zombie, "x", "x"),
        "retry": lambda s: scans.retry(s, zombie, "x", "x"),
    }
    with pytest.raises(LeaseLost):
        record(database, zombie) if what == "record" else transact(database, late[what])
    assert show(database, scan_id) == before
    with database.read() as session, pytest.raises(NotFoundError):
        listings.newest_report(session, DIGEST, None)


def test_a_heartbeat_shows_progress(database: Database) -> None:
    scan_id = ask(database)
    held = take(database)
    transact(database, lambda s: scans.heartbeat(s, held, 60, Progress(Stage.FETCH, "reading layers", 3, 9)))
    assert show(database, scan_id).progress == Progress(Stage.FETCH, "reading layers", 3, 9)


def test_a_worker_that_was_slow_keeps_what_nobody_took(database: Database) -> None:
    scan_id = ask(database)
    held = take(database)
    set_(database, lease_until=0.0)
    transact(database, lambda s: scans.heartbeat(s, held, 60))
    transact(database, scans.sweep)
    record(database, held)
    assert show(database, scan_id).state is ScanState.DONE


# Ending


@pytest.mark.parametrize("end", ["done", "failed", "dead", "cancelled"])
def test_what_has_ended_does_not_change(database: Database, end: str) -> None:
    scan_id = ask(database)
    if end == "done":
        record(database, take(database))
    elif end == "failed":
        held = take(database)
        transact(database, lambda s: scans.fail(s, held, "malformed_image", "not an image"))
    elif end == "dead":
        set_(database, created_epoch=0.0)
        transact(database, scans.sweep)
    else:
        assert transact(database, lambda s: scans.cancel(s, scan_id))
    before = show(database, scan_id)
    assert before.state == end
    assert before.finished_at is not None
    assert not transact(database, lambda s: scans.cancel(s, scan_id))
    with pytest.raises(DatabaseError), database.session() as session:
        session.execute(scan.update().values(state="queued"))
    assert show(database, scan_id) == before


def test_a_cancelled_scan_is_taken_from_its_worker(database: Database) -> None:
    scan_id = ask(database)
    held = take(database)
    assert transact(database, lambda s: scans.cancel(s, scan_id))
    with pytest.raises(LeaseLost):
        record(database, held)
    with database.read() as session:
        (only,) = scans.attempts(session, scan_id)
    assert only.reason == "cancelled"
    assert only.ended_at is not None


def test_a_rescan_is_a_new_scan(database: Database) -> None:
    former = ask(database)
    record(database, take(database))
    ticket = transact(database, lambda s: scans.rescan(s, former, "alice"))
    again = show(database, ticket.scan_id)
    assert again.supersedes == former
    assert again.request.target == show(database, former).request.target
    assert again.request.requested_by == "alice"


# Failing and vanishing


def test_three_attempts_then_dead(database: Database) -> None:
    scan_id = ask(database)
    for attempt in (1, 2):
        held = take(database)
        with database.session() as session:
            state = scans.retry(session, held, "registry_error", "reset")
        assert state is ScanState.RETRY_WAIT
        assert show(database, scan_id).attempt == attempt
        assert transact(database, scans.sweep).kicks == ()  # its time has not come
        set_(database, next_at=0.0)
        assert [kick[0] for kick in transact(database, scans.sweep).kicks] == [scan_id]
    held = take(database)
    assert transact(database, lambda s: scans.retry(s, held, "registry_error", "reset")) is ScanState.DEAD
    ended = show(database, scan_id)
    assert (ended.attempt, ended.reason, ended.message) == (3, "registry_error", "reset")
    with database.read() as session:
        assert [a.reason for a in scans.attempts(session, scan_id)] == ["registry_error"] * 3


@pytest.mark.parametrize(("asked", "least", "most"), [(None, 8, 12), (40.0, 32, 48), (1e9, 2880, 4320)])
def test_how_long_it_waits(database: Database, asked: float | None, least: float, most: float) -> None:
    """Back-off with a fifth of jitter, and what the registry asked for, up to an hour."""
    ask(database)
    held = take(database)
    transact(database, lambda s: scans.retry(s, held, "registry_rate_limited", "slow down", asked))
    with database.read() as session:
        waits = session.execute(sa.select(scan.c.next_at - scan.c.created_epoch)).scalar_one()
    assert least <= waits <= most + 60  # created a moment before


def test_five_lost_workers_then_dead_and_from_the_second_on_in_quarantine(database: Database) -> None:
    scan_id = ask(database)
    lanes = []
    for _ in range(5):
        lanes.append(take(database).request.lane)
        set_(database, lease_until=0.0)
        transact(database, scans.sweep)
    assert lanes == ["push", "push", "quarantine", "quarantine", "quarantine"]
    ended = show(database, scan_id)
    assert (ended.state, ended.reason, ended.lost, ended.attempt) == (ScanState.DEAD, "worker_lost", 5, 0)
    with database.read() as session:
        assert [a.reason for a in scans.attempts(session, scan_id)] == ["worker_lost"] * 5


def test_a_day_is_the_end_also_of_one_that_still_runs(database: Database) -> None:
    scan_id = ask(database)
    held = take(database)
    set_(database, created_epoch=0.0)
    assert transact(database, scans.sweep).dead == 1
    ended = show(database, scan_id)
    assert (ended.state, ended.reason, ended.lost) == (ScanState.DEAD, "deadline_exceeded", 0)
    with pytest.raises(LeaseLost):
        record(database, held)


def test_a_lost_kick_is_sent_again(database: Database) -> None:
    scan_id = ask(database, lane=Lane.GATE)
    assert transact(database, scans.sweep).kicks == ()  # whoever asked has just sent one
    set_(database, kicked_epoch=0.0)
    assert transact(database, scans.sweep).kicks == ((scan_id, Lane.GATE),)
    assert transact(database, scans.sweep).kicks == ()


def test_a_clock_that_is_set_back_delays_nothing(database: Database) -> None:
    """The database's clock was hours ahead, and is corrected: what was due then is due now."""
    retried = ask(database, "h.io/retried:1")
    held = take(database)
    transact(database, lambda s: scans.retry(s, held, "registry_error", "reset"))
    ask(database, "h.io/running:1")
    running = take(database)
    queued = ask(database, "h.io/queued:1")
    ahead = {name: scan.c[name] + 7200 for name in ("created_epoch", "kicked_epoch", "next_at", "lease_until")}
    set_(database, **ahead)
    assert transact(database, lambda s: scans.claim(s, "worker", LANES, 60)) is None
    kicks = transact(database, scans.sweep).kicks
    assert {scan_id for scan_id, _ in kicks} == {queued, retried}
    assert {take(database).scan_id, take(database).scan_id} == {queued, retried}
    with database.read() as session:
        own = sa.select(scan.c.lease_until - epoch(session)).where(scan.c.id == running.scan_id)
        assert 0 < session.execute(own).scalar_one() <= 900, "a dead worker's lease ends"
    transact(database, lambda s: scans.heartbeat(s, running, 60))  # a living worker keeps it


def test_sweepers_that_meet_count_a_lost_worker_once(database: Database) -> None:
    scan_id = ask(database)
    take(database)
    set_(database, lease_until=0.0)
    swept = together(6, lambda _: transact(database, scans.sweep))
    assert sum(one.requeued for one in swept if isinstance(one, scans.Swept)) == 1
    assert show(database, scan_id).lost == 1


@pytest.mark.parametrize("how", ["retry", "lost", "twin"])
def test_one_that_comes_back_does_not_collide_with_its_like(database: Database, how: str) -> None:
    """Meanwhile the same was asked for again and is queued: two may be, because only the newer one may still be
    joined.
    """
    first = ask(database)
    if how == "twin":
        other = ask(database, "h.io/other/cart:2")
        twin = transact(database, lambda s: scans.claim(s, "w", LANES, 60, scan_id=other))
        assert twin
        assert transact(database, lambda s: scans.settle(s, twin, DIGEST, "db1"))
    held = take(database)
    second = ask(database)
    if how == "retry":
        transact(database, lambda s: scans.retry(s, held, "registry_error", "reset"))
    elif how == "lost":
        set_(database, lease_until=0.0)
    else:
        assert not transact(database, lambda s: scans.settle(s, held, DIGEST, "db1"))
    set_(database, next_at=0.0)
    transact(database, scans.sweep)
    assert {show(database, one).state for one in (first, second)} == {ScanState.QUEUED}
    assert ask(database) == second
    assert {take(database).scan_id, take(database).scan_id} == {first, second}


# One scan for the same bytes


def test_the_same_name_is_merged_and_shows_the_others_end(database: Database) -> None:
    first = ask(database)
    winner = take(database)
    second = ask(database)
    loser = take(database)
    assert transact(database, lambda s: scans.settle(s, winner, DIGEST, "db1"))
    assert not transact(database, lambda s: scans.settle(s, loser, DIGEST, "db1"))
    assert show(database, second).state is ScanState.RUNNING
    record(database, winner)
    assert show(database, second).state is ScanState.DONE
    assert show(database, second).report_id == show(database, first).report_id
    with database.read() as session:
        assert session.execute(sa.select(scan.c.merged_into).where(scan.c.id == second)).scalar() == first


@pytest.mark.parametrize("end", ["done", "cancelled", "worker lost"])
def test_another_name_waits_and_gets_a_verdict_of_its_own(database: Database, end: str) -> None:
    """Merged away, the second repository never had a verdict: its gate would have waited for ever."""
    first = ask(database, "h.io/shop/cart:1")
    winner = take(database)
    second = ask(database, "h.io/other/cart:2")
    waiting = take(database)
    assert transact(database, lambda s: scans.settle(s, winner, DIGEST, "db1"))
    assert not transact(database, lambda s: scans.settle(s, waiting, DIGEST, "db1"))
    assert show(database, second).state is ScanState.QUEUED
    assert transact(database, lambda s: scans.claim(s, "w", LANES, 60)) is None
    if end == "done":
        record(database, winner)
    elif end == "cancelled":
        transact(database, lambda s: scans.cancel(s, first))
    else:
        with database.session() as session:
            session.execute(scan.update().where(scan.c.id == first).values(lease_until=0.0))
        transact(database, scans.sweep)
        set_(database, next_at=0.0)
        assert take(database).scan_id == first  # its turn is first; the other comes after half a minute at the latest
    again = take(database)
    assert again.scan_id == second
    assert transact(database, lambda s: scans.settle(s, again, DIGEST, "db1"))
    record(database, again)
    ended = show(database, second)
    assert (ended.state, ended.attempt, ended.lost) == (ScanState.DONE, 0, 0)


@pytest.mark.parametrize("other", ["advisories", "engine", "platform", "project", "force"])
def test_what_could_come_out_otherwise_is_scanned_apart(database: Database, other: str) -> None:
    from scanner.model.reference import Platform

    changed: dict[str, dict[str, Any]] = {
        "engine": {"engine": "clair"},
        "platform": {"platform": Platform("linux", "arm64")},
        "project": {"project": "b"},
        "force": {"force": True},
        "advisories": {},
    }
    more = changed[other]
    ask(database)
    first = take(database)
    ask(database, **more)
    second = take(database)
    assert transact(database, lambda s: scans.settle(s, first, DIGEST, "db1"))
    assert transact(database, lambda s: scans.settle(s, second, DIGEST, "db2" if other == "advisories" else "db1"))


def test_settling_together_leaves_one_that_scans(database: Database) -> None:
    held = []
    for _ in range(6):
        ask(database)
        held.append(take(database))
    answers = together(6, lambda n: transact(database, lambda s: scans.settle(s, held[n], DIGEST, "db1")))
    assert sorted(answers, key=str) == [False] * 5 + [True]


# Reading


def test_foreign_scans_are_not_there(database: Database) -> None:
    scan_id = ask(database, project="a")
    with database.read() as session:
        assert scans.get(session, scan_id, frozenset({"a"})).id == scan_id
        with pytest.raises(NotFoundError) as foreign:
            scans.get(session, scan_id, frozenset({"b"}))
        with pytest.raises(NotFoundError) as missing:
            scans.get(session, "00000000-0000-4000-8000-000000000000", frozenset({"b"}))
        assert str(foreign.value) == str(missing.value)
        assert scans.list_scans(session, frozenset({"b"})).items == ()


def test_pages_show_every_scan_once_while_new_ones_come(database: Database) -> None:
    wanted = [ask(database, f"h.io/r{n}:1") for n in range(7)]
    seen, cursor = [], None
    while True:
        with database.read() as session:
            page = scans.list_scans(session, None, cursor=cursor, limit=3)
        seen += [item.id for item in page.items]
        ask(database, f"h.io/new{len(seen)}:1")
        if (cursor := page.next_cursor) is None:
            break
    old = [scan_id for scan_id in seen if scan_id in wanted]
    assert sorted(old) == sorted(wanted)  # not their order: SQLite's clock knows milliseconds only


def test_a_cursor_of_somewhere_else_is_refused(database: Database) -> None:
    for cursor in ("x", "WzFd", "e30"):
        with database.read() as session, pytest.raises(UsageError) as refused:
            scans.list_scans(session, None, cursor=cursor)
        assert refused.value.reason == "bad_cursor"


@pytest.mark.parametrize("message", ["a\0b", "a\ud800b", "x" * 5000])
def test_any_message_can_be_recorded(database: Database, message: str) -> None:
    """A NUL in an error from outside lost the end of the attempt on PostgreSQL."""
    scan_id = ask(database)
    held = take(database)
    transact(database, lambda s: scans.fail(s, held, "malformed_image", message))
    shown = show(database, scan_id)
    assert shown.state is ScanState.FAILED
    assert len(shown.message) <= 1000


def test_the_invariants_find_what_is_wrong(database: Database) -> None:
    """They are trusted after every fault test, so they must be able to fail."""
    ask(database)
    held = take(database)
    with database.session() as session:
        session.execute(scan_attempt.delete())
    with database.read() as session:
        assert [text.split(":")[0] for text in scans.invariants(session)] == ["running without an attempt"]
    with database.session() as session:
        session.execute(scan.update().values(state="queued", lease_until=None))
        scans.cancel(session, held.scan_id)


def test_scans_are_narrowed_to_a_digest_and_to_failures_that_nobody_repeated(database: Database) -> None:
    done = ask(database)
    record(database, take(database))
    digest = show(database, done).digest
    failed = ask(database, f"{factories.REPOSITORY}:2")
    held = take(database)
    transact(database, lambda s: scans.fail(s, held, "image_error", "no such image"))

    def listed(**narrowed: object) -> list[str]:
        with database.read() as session:
            return [view.id for view in scans.list_scans(session, None, **narrowed).items]  # type: ignore[arg-type]

    assert digest is not None
    assert listed(digest=str(digest)) == [done]
    assert listed(only_unrepeated=True) == [failed]
    transact(database, lambda s: scans.rescan(s, failed, "alice"))
    assert listed(only_unrepeated=True) == []
