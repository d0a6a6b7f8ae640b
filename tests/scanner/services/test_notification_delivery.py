"""From an event to a receiver: grouped, in order, at least once under one id, and never lost to what breaks."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scanner.config import Secret, Settings
from scanner.model.actor import COMMAND_LINE, Person
from scanner.model.decision import Verdict
from scanner.model.finding import Severity
from scanner.model.notification import Event, EventKind, Level
from scanner.services import exemptions as exemption_cases
from scanner.services import notification_delivery as delivery
from scanner.services import notifications as use_cases
from scanner.store import accounts, alerts, channels, exemptions, images, notifications, outbox, projects, scans
from scanner.store.schema import exemption, notification, notification_channel, notification_subject, scan
from scanner.store.session import Database, epoch
from tests.actors import person
from tests.databases import BACKENDS, migrated_url
from tests.scanner.notify.receivers import event, listener
from tests.scanner.store import factories as make

KEY = Secret("a secret key for tests, long enough")
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SETTINGS = Settings(public_url="https://dockwarden.example", secret_key=KEY)


# What rests on leases, locks and order is shown on both databases; the rules alone on one.
both = pytest.mark.parametrize("backend", BACKENDS, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def database_url(backend: str, tmp_path: Path) -> str:
    return migrated_url(backend, tmp_path)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.engine.dispose()


class Hook:
    """A receiver of webhooks that answers as it is told, and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[str], int] = lambda identifier: 200

    @property
    def ids(self) -> list[str]:
        return [identifier for identifier, _ in self.got]

    def serve(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
        while len(body) < int(headers["content-length"]):
            body += connection.recv(65536)
        self.got.append((headers["webhook-id"], json.loads(body)))
        status = self.answer(headers["webhook-id"])
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status)


@pytest.fixture
def hook() -> Iterator[tuple[Hook, str]]:
    made = Hook()
    with listener(made.serve) as port:
        yield made, f"http://127.0.0.1:{port}/"


def channel(database: Database, url: str, name: str = "ops", project: str = "") -> str:
    values = {"url": url, "secret": SECRET}
    return use_cases.create(
        database, SETTINGS, KEY, COMMAND_LINE, name=name, format_="webhook", values=values, project=project
    ).id


def subscribe(database: Database, channel_id: str, **more: Any) -> str:
    with database.session() as session:
        wanted = use_cases.WantedSubscription(channel_id, **{"group_seconds": 0, **more})
        return use_cases.subscribe(session, COMMAND_LINE, wanted).id


def tell(database: Database, *events: Event) -> None:
    with database.session() as session:
        outbox.add(session, events)


def send(database: Database, worker: str = "w") -> int:
    """Route and send until nothing is due. Returns how many messages were tried."""
    while delivery.route(database):
        pass
    tried = 0
    while (now := delivery.deliver(database, SETTINGS, KEY, worker)) is not None:
        tried += now
    return tried


def states(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.execute(sa.select(notification.c.state).order_by(notification.c.id)).scalars())


def due_now(database: Database) -> None:
    """What waits for its next attempt is due: time passed."""
    with database.session() as session:
        session.execute(notification.update().where(notification.c.state == "waiting").values(next_at=0.0))
        session.execute(notification_channel.update().values(paused_until=None))


@both
def test_400_images_of_one_vulnerability_are_one_message(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    subscribe(database, channel(database, url))
    tell(database, *[event(item=f"registry.example.com/shop/app-{n}:1") for n in range(400)])
    assert send(database) == 1
    ((_, body),) = receiver.got
    assert body["data"]["count"] == 400
    assert body["data"]["title"] == "CVE-2026-0001 (critical) in openssl: 400 images"
    assert len(body["data"]["events"]) == notifications.KEPT
    assert body["data"]["url"] == "https://dockwarden.example"
    assert send(database) == 0
    assert states(database) == ["sent"]


def test_events_of_other_groups_are_messages_of_their_own(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    subscribe(database, channel(database, url))
    tell(database, event(), event(subject="CVE-2"), event(project="bank"), event(kind=EventKind.TAG_MOVED))
    assert send(database) == 4
    assert len(set(receiver.ids)) == 4


@both
def test_a_window_collects_and_what_was_tried_does_not_change(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    receiver.answer = lambda identifier: 503
    identifier = subscribe(database, channel(database, url), group_seconds=3600)
    tell(database, event("a"))
    assert send(database) == 0
    tell(database, event("b"))
    assert send(database) == 0
    assert states(database) == ["collecting"]
    with database.session() as session:
        session.execute(notification.update().values(next_at=0.0))
    assert send(database) == 1
    tell(database, event("c"))
    send(database)
    assert states(database) == ["waiting", "collecting"], "the receiver may have seen the first: it stays as it was"
    receiver.answer = lambda identifier: 200
    due_now(database)
    send(database)
    assert [body["data"]["count"] for _, body in receiver.got] == [2, 2]
    assert receiver.ids[0] == receiver.ids[1]
    assert identifier


def test_a_failure_waits_longer_each_time_and_ends_as_a_dead_letter(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    receiver.answer = lambda identifier: 500
    channel_id = channel(database, url)
    subscribe(database, channel_id)
    tell(database, event())
    waits = []
    for _ in range(len(delivery.BACK_OFF) + 1):
        send(database)
        with database.read() as session:
            view = notifications.list_notifications(session, None).items[0]
            now = session.execute(sa.select(notification_channel.c.paused_until)).scalar()
        waits.append(view.next_at)
        assert view.reason == "receiver_refused"
        assert "500" in view.message
        assert view.answer == "ok"
        assert now is not None, "the channel rests: others that wait for it do not hammer it"
        due_now(database)
    assert view.state == "dead"
    assert view.attempt == len(delivery.BACK_OFF) + 1
    assert len(set(receiver.ids)) == 1
    with database.session() as session:
        assert use_cases.replay_all(session, COMMAND_LINE, channel_id) == 1
    receiver.answer = lambda identifier: 200
    assert send(database) == 1
    assert states(database) == ["sent"]
    assert len(set(receiver.ids)) == 1, "replayed under its id"


def test_what_the_receiver_will_always_refuse_is_dead_at_once(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    receiver.answer = lambda identifier: 400 if len(receiver.got) == 1 else 200
    subscribe(database, channel(database, url))
    tell(database, event(), event(subject="CVE-2"))
    assert send(database) == 2
    assert states(database) == ["dead", "sent"], "and holds up nothing"


@both
def test_events_of_one_subject_arrive_in_their_order(database: Database, hook: tuple[Hook, str]) -> None:
    """Also where they are of different groups, and where the first is tried again."""
    receiver, url = hook
    failing = {"now": True}
    receiver.answer = lambda identifier: 503 if failing["now"] else 200
    subscribe(database, channel(database, url))
    for number in range(6):
        group = f"group {number % 2}"
        tell(database, event(f"{number}", kind=EventKind.IMAGE_DENIED, subject="shop/cart", group=group))
        if number < 3:
            delivery.route(database)
            delivery.deliver(database, SETTINGS, KEY, "w")
            due_now(database)
    tell(database, event("6", kind=EventKind.IMAGE_DENIED, subject="shop/cart", group="group 0", resolved=True))
    failing["now"] = False
    receiver.got.clear()
    for _ in range(10):
        due_now(database)
        send(database)
    items = [one["item"] for _, body in receiver.got for one in body["data"]["events"]]
    assert items == ["0", "1", "2", "3", "4", "5", "6"]
    with database.read() as session:
        assert session.execute(sa.select(sa.func.count()).select_from(notification_subject)).scalar() == 0


def test_one_channel_that_is_away_holds_up_no_other(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = channel(database, f"http://127.0.0.1:{port}/", "away")
    subscribe(database, away)
    subscribe(database, channel(database, url, "here"))
    tell(database, *[event(subject=f"CVE-{n}") for n in range(30)])
    tried = send(database)
    assert tried == 31, "one attempt at the channel that is away, not thirty"
    assert len(receiver.got) == 30


def test_a_channel_that_fails_is_told_on_the_others_and_so_is_its_end(
    database: Database, hook: tuple[Hook, str]
) -> None:
    receiver, url = hook
    broken = Hook()
    broken.answer = lambda identifier: 500
    with listener(broken.serve) as port:
        failing = channel(database, f"http://127.0.0.1:{port}/", "broken")
        subscribe(database, failing)
        subscribe(database, channel(database, url, "good"), kinds=["receiver.failing"])
        tell(database, event())
        for _ in range(3):
            send(database)
            due_now(database)
        broken.answer = lambda identifier: 200
        send(database)
        send(database)
    told = [(body["type"], body["data"]["resolved"]) for _, body in receiver.got]
    assert told == [("receiver.failing", False), ("receiver.failing", True)]
    assert all(body["type"] == "vulnerability.new" for _, body in broken.got), "it cannot tell of itself"


def test_an_event_that_was_told_while_it_held_is_followed_by_its_end_separately(
    database: Database, hook: tuple[Hook, str]
) -> None:
    receiver, url = hook
    subscribe(database, channel(database, url))
    tell(database, event(), event(resolved=True, item=""), event())
    send(database)
    for _ in range(3):
        send(database)
    assert [body["data"]["resolved"] for _, body in receiver.got] == [False, True, False]


# Killed at any moment


def _killed_after_sending(database_url: str, port: int) -> None:
    """A worker that is killed between the delivery and its record."""
    database = Database(database_url)

    def never(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    delivery.notifications.record_sent = never  # type: ignore[assignment]
    delivery.deliver(database, SETTINGS, KEY, "killed")


@both
def test_killed_between_delivery_and_record_the_receiver_sees_the_same_id_twice(
    database: Database, database_url: str, hook: tuple[Hook, str]
) -> None:
    receiver, url = hook
    subscribe(database, channel(database, url))
    tell(database, event(), event(subject="CVE-2"))
    delivery.route(database)
    database.engine.dispose()
    child = multiprocessing.get_context("spawn").Process(target=_killed_after_sending, args=(database_url, 0))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert len(receiver.got) == 1
    assert states(database) == ["sending", "sending"]
    assert send(database) == 0, "its lease is another worker's still"
    with database.session() as session:
        session.execute(notification_channel.update().values(lease_until=0.0))
    assert send(database) == 2
    assert states(database) == ["sent", "sent"]
    assert receiver.ids[0] == receiver.ids[1]
    assert len(set(receiver.ids)) == 2


@both
def test_in_a_burst_what_was_accepted_is_recorded_in_few_transactions(
    database: Database, hook: tuple[Hook, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first message at once, because most turns have one; then twice as many each time."""
    receiver, url = hook
    subscribe(database, channel(database, url))
    tell(database, *[event(subject=f"CVE-{n}") for n in range(20)])
    delivery.route(database)
    recorded: list[int] = []
    record_sent = delivery.notifications.record_sent

    def counted(session: Any, accepted: Any) -> None:
        each = list(accepted)
        recorded.append(len(each))
        record_sent(session, each)

    monkeypatch.setattr(delivery.notifications, "record_sent", counted)
    monkeypatch.setattr(delivery, "_RECORD_SECONDS", 3600.0)
    receiver.answer = lambda identifier: 503 if len(receiver.got) == 18 else 200
    assert delivery.deliver(database, SETTINGS, KEY, "w") == 18
    assert recorded == [1, 2, 4, 8, 2], "the last two with the failure that ended the turn"
    assert sorted(states(database)) == ["sent"] * 17 + ["waiting"] * 3
    due_now(database)
    assert send(database) == 3
    assert states(database) == ["sent"] * 20
    assert len(set(receiver.ids)) == 20


@both
def test_a_worker_that_lost_its_channel_records_nothing(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    subscribe(database, channel(database, url))
    tell(database, event())
    delivery.route(database)

    def stolen(message: Any) -> None:
        with database.session() as session:
            session.execute(notification_channel.update().values(fence=notification_channel.c.fence + 1))

    delivery.deliver(database, SETTINGS, KEY, "slow", sending=stolen)
    assert states(database) == ["sending"]
    with database.session() as session:
        session.execute(notification_channel.update().values(lease_until=0.0))
    send(database)
    assert states(database) == ["sent"]
    assert len(set(receiver.ids)) == 1


@both
def test_two_workers_share_the_work_and_send_nothing_twice(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    for name in "abc":
        subscribe(database, channel(database, f"{url}{name}", name))
    tell(database, *[event(subject=f"CVE-{n}") for n in range(12)])
    threads = [threading.Thread(target=send, args=(database, f"w{n}")) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    send(database)
    assert sorted(receiver.ids) == sorted(set(receiver.ids))
    assert len(receiver.got) == 36


@both
def test_a_burst_is_routed_in_few_transactions(database: Database, hook: tuple[Hook, str]) -> None:
    _, url = hook
    subscribe(database, channel(database, url), condition='event.severity == "critical"')
    tell(database, *[event(item=f"image {n}") for n in range(4_000)])
    batches = 0
    while delivery.route(database):
        batches += 1
    assert batches == 4_000 / delivery.BATCH
    with database.read() as session:
        (view,) = notifications.list_notifications(session, None).items
        assert view.count == 4_000
        assert outbox.oldest_unrouted(session) is None


# Who gets what


@pytest.mark.parametrize(
    ("more", "gets"),
    [
        ({}, True),
        ({"kinds": ["vulnerability.new"]}, True),
        ({"kinds": ["tag.moved"]}, False),
        ({"project": "shop"}, True),
        ({"project": "bank"}, False),
        ({"condition": "event.exploited"}, False),
        ({"condition": 'event.severity == "critical" && event.project == "shop"'}, True),
        ({"condition": 'event.verdict == "deny"'}, False),
        ({"condition": "event.fixed_versions.size() > 99"}, True),  # fails on this event: not silenced
        ({"disabled": True}, False),
    ],
)
def test_a_subscription_gets_what_it_is_about(
    database: Database, hook: tuple[Hook, str], more: dict[str, Any], gets: bool
) -> None:
    receiver, url = hook
    with database.session() as session:
        for name in ("shop", "bank"):
            projects.create(session, name)
    identifier = channel(database, url)
    if "fixed_versions" in more.get("condition", ""):
        subscription = subscribe(database, identifier)
        with database.session() as session:
            channels.change_subscription(session, subscription, {"condition": more["condition"]})
    else:
        subscribe(database, identifier, **more)
    tell(database, event())
    send(database)
    assert bool(receiver.got) is gets


def test_a_person_gets_what_they_may_see_now(database: Database, hook: tuple[Hook, str]) -> None:
    _, url = hook
    identifier = channel(database, url)
    with database.session() as session:
        projects.create(session, "shop")
        user = accounts.create_user(session, "dev", "correct horse battery", "developer")
        projects.add_member(session, "shop", user.id)
        values = {"kinds": [], "condition": "", "digest": "", "group_seconds": 0, "quiet_from": "", "quiet_to": ""}
        own = {"owner_id": user.id, "owner": "dev", "recipient": "dev@example.com", "created_by": "dev", "name": ""}
        channels.subscribe(session, identifier, {**values, **own, "project": "", "timezone": "UTC", "disabled": False})

    def told(*events: Event) -> int:
        tell(database, *events)
        while delivery.route(database):
            pass
        with database.session() as session:
            found = notifications.list_notifications(session, None).items
            session.execute(notification.delete())
        assert all(view.recipient == "dev@example.com" for view in found)
        return sum(view.count for view in found)

    system = event(project="", kind=EventKind.QUEUE_STUCK)
    assert told(event(), event(project="bank"), system) == 1, "neither another project's nor the installation's"
    with database.session() as session:
        projects.remove_member(session, "shop", user.id)
    assert told(event()) == 0
    with database.session() as session:
        accounts.set_role(session, user.id, "security")
    assert told(event(), event(project="bank"), system) == 3
    with database.session() as session:
        accounts.set_disabled(session, user.id, True)
    assert told(event()) == 0


@pytest.mark.parametrize(
    ("now", "begin", "end", "zone", "until"),
    [
        ("2026-03-01T23:30", "22:00", "07:00", "UTC", "2026-03-02T07:00"),
        ("2026-03-01T06:59", "22:00", "07:00", "UTC", "2026-03-01T07:00"),
        ("2026-03-01T07:00", "22:00", "07:00", "UTC", "2026-03-01T07:00"),
        ("2026-03-01T12:30", "12:00", "13:00", "UTC", "2026-03-01T13:00"),
        ("2026-03-01T13:30", "12:00", "13:00", "UTC", "2026-03-01T13:30"),
        ("2026-03-01T22:00", "22:00", "07:00", "Europe/Berlin", "2026-03-02T06:00"),
        ("2026-03-28T23:00", "22:00", "07:00", "Europe/Berlin", "2026-03-29T05:00"),  # the clock goes forward
        ("2026-10-24T23:00", "22:00", "07:00", "Europe/Berlin", "2026-10-25T06:00"),  # and back
        ("2026-03-01T12:30", "12:00", "12:00", "UTC", "2026-03-01T12:30"),
    ],
)
def test_quiet_hours_end_on_the_clock_of_the_subscriber(now: str, begin: str, end: str, zone: str, until: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert use_cases.quiet_until(at, begin, end, zone) == datetime.fromisoformat(until).replace(tzinfo=UTC)


def test_a_digest_is_one_message_of_every_kind(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    subscribe(database, channel(database, url), digest="daily")
    tell(database, event(), event(subject="CVE-2", resolved=True), event(kind=EventKind.TAG_MOVED, subject="t"))
    assert send(database) == 0
    with database.session() as session:
        session.execute(notification.update().values(next_at=0.0))
    assert send(database) == 1
    ((_, body),) = receiver.got
    assert body["type"] == "digest"
    assert body["data"]["title"] == "3 events"


# What is told


def _events(database: Database) -> list[Event]:
    with database.read() as session:
        return [row.event for row in outbox.unrouted_events(session, limit=1000)]


def _record(database: Database, found: Any, verdict: Verdict = Verdict.ALLOW) -> None:
    with database.session() as session:
        scans.request(session, make.request(force=True))
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        images.record(session, held, found, make.evidence(found), [make.decided(found, verdict)])


def test_a_denial_is_told_once_and_so_is_its_end(database: Database) -> None:
    found = make.report("image")
    _record(database, found, Verdict.DENY)
    again = replace(found, tag="1")
    _record(database, again, Verdict.DENY)
    _record(database, again, Verdict.ALLOW)
    assert [one.kind for one in _events(database)] == [EventKind.IMAGE_DENIED, EventKind.IMAGE_DECIDED]


def test_a_critical_that_is_new_on_a_known_image_is_told(database: Database) -> None:
    package = make.package(1)
    old = make.vulnerability(1, package, severity=Severity.CRITICAL)
    _record(database, make.report("image", packages=[package], vulnerabilities=[old]))
    assert [one.kind for one in _events(database)] == [EventKind.IMAGE_DECIDED], "a first scan tells its verdict"
    new = make.vulnerability(2, package, severity=Severity.CRITICAL)
    low = make.vulnerability(3, package, severity=Severity.LOW)
    exploited = make.vulnerability(4, package, severity=Severity.LOW, known_exploited=True)
    _record(database, make.report("image", packages=[package], vulnerabilities=[old, new, low, exploited]))
    told = [one for one in _events(database) if one.kind is EventKind.VULNERABILITY_NEW]
    assert [one.subject for one in told] == [exploited.id, new.id]
    assert told[0].data["exploited"] is True


@both
def test_a_group_is_closed_when_nothing_of_it_is_left(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    subscribe(database, channel(database, url), kinds=["vulnerability.new"])
    package = make.package(1)
    flaw = make.vulnerability(1, package, severity=Severity.CRITICAL)
    _record(database, make.report("image", packages=[package]))
    _record(database, make.report("image", packages=[package], vulnerabilities=[flaw]))
    send(database)
    delivery.watch(database, SETTINGS)
    send(database)
    assert [body["data"]["resolved"] for _, body in receiver.got] == [False]
    _record(database, make.report("fixed image", packages=[make.package(2)]))  # the tag names another image now
    delivery.watch(database, SETTINGS)
    send(database)
    assert [body["data"]["resolved"] for _, body in receiver.got] == [False, True]
    assert len({body["data"]["group"] for _, body in receiver.got}) == 1, "the ticket is found by it"
    delivery.watch(database, SETTINGS)
    assert send(database) == 0


@both
def test_an_exemption_is_told_when_requested_when_it_expires_soon_and_when_it_has(database: Database) -> None:
    with database.session() as session:
        wanted = an_exemption(datetime.now(UTC) + timedelta(days=3))
        found = exemption_cases.request(session, person("ada"), wanted)
        exemptions.approve(session, found.id, Person("other", "bob"), note="")
    delivery.watch(database, SETTINGS)
    delivery.watch(database, SETTINGS)
    kinds = [one.kind for one in _events(database) if one.kind.value.startswith("exemption")]
    assert kinds == [EventKind.EXEMPTION_REQUESTED, EventKind.EXEMPTION_EXPIRING], "once each"
    with database.session() as session:
        session.execute(exemption.update().values(expires_at=datetime.now(UTC) - timedelta(minutes=1)))
    delivery.watch(database, SETTINGS)
    delivery.watch(database, SETTINGS)
    kinds = [one.kind for one in _events(database) if one.kind.value.startswith("exemption")]
    assert kinds[2:] == [EventKind.EXEMPTION_LAPSED]


def an_exemption(ends: datetime) -> Any:
    return exemption_cases.NewExemption(
        images=["registry.example.com/shop/cart"],
        justification="We never call it.",
        expires_at=ends,
        subject="CVE-1",
        until_exploited=False,
        until_fixed=False,
    )


@both
def test_a_queue_that_is_stuck_is_told_once_and_so_is_its_end(database: Database) -> None:
    with database.session() as session:
        scans.request(session, make.request())
        session.execute(scan.update().values(created_epoch=time.time() - 3600))
    for _ in range(2):
        delivery.watch(database, SETTINGS)
    with database.session() as session:
        session.execute(scan.update().values(state="cancelled"))
    for _ in range(2):
        delivery.watch(database, SETTINGS)
    told = [one for one in _events(database) if one.kind is EventKind.QUEUE_STUCK]
    assert [one.resolved for one in told] == [False, True]
    assert told[0].level is Level.ERROR
    stale = [one for one in _events(database) if one.kind is EventKind.ADVISORIES_STALE]
    assert [one.resolved for one in stale] == [False], "there is no advisory database here"


def test_conditions_are_told_by_one_worker(database: Database) -> None:
    with database.session() as session:
        alerts.note(session, EventKind.VULNERABILITY_NEW, [("shop", "CVE-1"), ("shop", "CVE-1")])
        alerts.note(session, EventKind.VULNERABILITY_NEW, [("shop", "CVE-1")])
        assert alerts.open_(session, EventKind.VULNERABILITY_NEW) == {("shop", "CVE-1")}


def test_an_hourly_digest_is_sent_at_the_full_hour(database: Database, hook: tuple[Hook, str]) -> None:
    subscribe(database, channel(database, hook[1]), digest="hourly")
    tell(database, event(), event(subject="CVE-2"))
    assert send(database) == 0
    with database.read() as session:
        due = session.execute(sa.select(notification.c.next_at)).scalar_one()
        now = epoch(session)
    assert due % 3600 == 0
    assert 0 < due - now <= 3600


def test_what_a_channel_cannot_send_says_why_on_its_message(database: Database, hook: tuple[Hook, str]) -> None:
    """After a key was lost, or after a return to a version that does not know the format."""
    receiver, url = hook
    channel_id = channel(database, url)
    subscribe(database, channel_id)
    tell(database, event())
    delivery.route(database)
    delivery.deliver(database, SETTINGS, Secret("another key, just as long as it"), "w")
    due_now(database)
    with database.session() as session:
        assert channels.get(session, channel_id).message == "a stored secret cannot be decrypted"
        session.execute(notification_channel.update().values(format="pigeon"))
        session.execute(notification.update().values(state="waiting", next_at=0.0))
    delivery.deliver(database, SETTINGS, KEY, "w")
    with database.read() as session:
        assert channels.get(session, channel_id).message == "this version has no channel format pigeon"
    assert receiver.got == []


def test_a_worker_that_stops_puts_back_what_it_did_not_send(database: Database, hook: tuple[Hook, str]) -> None:
    receiver, url = hook
    subscribe(database, channel(database, url))
    tell(database, *[event(subject=f"CVE-{n}") for n in range(3)])
    delivery.route(database)
    assert delivery.deliver(database, SETTINGS, KEY, "w", stopped=lambda: bool(receiver.got)) == 1
    assert sorted(states(database)) == ["sent", "waiting", "waiting"]
    assert send(database, "another") == 2
    assert len(set(receiver.ids)) == 3


@pytest.mark.parametrize("status", [200, 503])
def test_a_channel_that_is_removed_while_it_sends(database: Database, hook: tuple[Hook, str], status: int) -> None:
    receiver, url = hook
    receiver.answer = lambda identifier: status
    channel_id = channel(database, url)
    subscribe(database, channel_id)
    tell(database, event())
    delivery.route(database)

    def removed(message: Any) -> None:
        with database.session() as session:
            channels.remove(session, channel_id)

    assert delivery.deliver(database, SETTINGS, KEY, "w", sending=removed) == 1
    assert states(database) == []
    assert delivery.deliver(database, SETTINGS, KEY, "w") is None


def test_an_alert_of_a_denial_is_closed_when_the_rule_denies_no_more(database: Database) -> None:
    with database.session() as session:
        alerts.note(session, EventKind.IMAGE_DENIED, [("default", "production no-criticals")])
    delivery.watch(database, SETTINGS)
    ends = [one for one in _events(database) if one.resolved]
    assert [(one.kind, one.group) for one in ends] == [(EventKind.IMAGE_DENIED, "production no-criticals")]
    with database.read() as session:
        assert alerts.open_(session, EventKind.IMAGE_DENIED) == set()
