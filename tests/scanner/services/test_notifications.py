"""Channels and subscriptions: who may configure what, what is refused, and that a secret never comes out."""

from __future__ import annotations

import base64
import logging
import socket
from dataclasses import replace
from typing import Any

import pytest

from scanner.config import KeyRing, Secret, Settings
from scanner.errors import ConflictError, NotFoundError, RefusedError, ScannerError, UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.services import notification_delivery as delivery
from scanner.services import notifications as use_cases
from scanner.store import audit, channels, outbox, projects, secrets
from scanner.store.schema import notification, notification_channel
from scanner.store.session import Database
from tests.actors import ownerless, person
from tests.scanner.notify.receivers import event, listener

KEY = Secret("a secret key for tests, long enough")
HOOK = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
SETTINGS = Settings()
SHOP = frozenset({"shop"})
MAIL = {"server": "127.0.0.1:2525", "sender": "d@example.com", "domains": "example.com", "security": "none"}


@pytest.fixture
def database(database: Database) -> Database:
    with database.session() as session:
        projects.create(session, "shop")
        projects.create(session, "bank")
    return database


def create(database: Database, who: Any = COMMAND_LINE, **more: Any) -> channels.ChannelView:
    given = {"name": "ops", "format_": "webhook", "values": {"url": "http://127.0.0.1:9/", "secret": HOOK}, **more}
    return use_cases.create(database, SETTINGS, KEY, who, **given)


def text_of(database: Database) -> str:
    """Everything that anybody may read."""
    with database.read() as session:
        entries = audit.list_entries(session).items
        return repr((channels.list_channels(session), channels.subscriptions(session), entries))


def test_a_secret_goes_in_and_never_comes_out(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = create(database)
    assert made.has_secrets
    use_cases.send_test(database, SETTINGS, KEY, COMMAND_LINE, made.id)
    use_cases.change(database, SETTINGS, KEY, COMMAND_LINE, made.id, name="new", values={"url": "http://127.0.0.1:9/"})
    assert HOOK not in text_of(database)
    assert HOOK not in caplog.text
    with database.session() as session:
        assert channels.secrets(session, made.id, KEY)["secret"].reveal() == HOOK, "what was not given stays"
        assert b"whsec" not in (session.exec_driver_sql("SELECT secrets FROM notification_channel").scalar() or b"")
        with pytest.raises(ScannerError) as refused:
            channels.secrets(session, made.id, Secret("another key, just as long as it"))
        assert refused.value.reason == "secret_unreadable"
        new = Secret("the key after that one, long enough")
        assert secrets.reseal(session, KeyRing(new, KEY)) == 1
        assert channels.secrets(session, made.id, new)["secret"].reveal() == HOOK


def test_a_stored_secret_is_not_sent_to_another_host(database: Database) -> None:
    made = create(database)
    values = {"url": "http://127.0.0.2:9/"}
    with pytest.raises(UsageError) as refused:
        use_cases.change(database, SETTINGS, KEY, COMMAND_LINE, made.id, name="ops", values=values)
    assert refused.value.field == "secret"


@pytest.mark.parametrize(
    ("format_", "values", "field"),
    [
        ("none", {}, "format"),
        ("webhook", {}, "url"),
        ("webhook", {"url": "ftp://x", "secret": HOOK}, "url"),
        ("webhook", {"url": "https://user:pw@x.example/", "secret": HOOK}, "url"),
        ("webhook", {"url": "http://127.0.0.1/", "secret": HOOK, "more": "x"}, "settings"),
        ("webhook", {"url": "http://127.0.0.1/", "secret": HOOK, "ca_pem": "no certificate"}, "ca_pem"),
        ("webhook", {"url": "http://no-such-host.invalid/", "secret": HOOK}, "settings"),
        ("slack", {"url": "not an address with a-secret"}, "url"),
        ("syslog", {"address": "127.0.0.1", "facility": "mail"}, "facility"),
        ("email", {**MAIL, "sender": "d@example.com\nBcc: x@y.z"}, "sender"),
    ],
)
def test_what_cannot_work_is_refused_with_its_field(
    database: Database, format_: str, values: dict[str, str], field: str
) -> None:
    with pytest.raises(UsageError) as refused:
        create(database, format_=format_, values=values)
    assert refused.value.field == field
    assert "a-secret" not in f"{refused.value}{refused.value.hint}"
    with database.read() as session:
        assert channels.list_channels(session) == ()


@pytest.mark.parametrize("format_", ["webhook", "syslog", "email", "gelf", "slack"])
def test_an_address_of_a_cloud_is_refused_before_it_is_stored(database: Database, format_: str) -> None:
    values = {
        "webhook": {"url": "http://169.254.169.254/", "secret": HOOK},
        "slack": {"url": "http://169.254.169.254/"},
        "syslog": {"address": "169.254.169.254:6514"},
        "gelf": {"address": "tls://[fd00:ec2::254]:12201"},
        "email": {**MAIL, "server": "169.254.169.254:25"},
    }[format_]
    with pytest.raises(RefusedError) as refused:
        create(database, format_=format_, values=values)
    assert refused.value.reason == "address_refused"


def test_channels_of_every_project_take_somebody_who_sees_them_all(database: Database) -> None:
    confined = ownerless("ci", "manage", "read", projects=SHOP)
    with pytest.raises(RefusedError):
        create(database, confined)
    with pytest.raises(NotFoundError):
        create(database, confined, project="bank")
    own = create(database, confined, project="shop")
    shared = create(database)
    with database.session() as session:
        assert [one.id for one in use_cases.configurable_channels(session, confined)] == [own.id]
        for work in (use_cases.remove, use_cases.visible):
            with pytest.raises(NotFoundError):
                work(session, confined, shared.id)
        with pytest.raises(NotFoundError):
            use_cases.subscribe(session, confined, use_cases.WantedSubscription(shared.id))
        with pytest.raises(UsageError):
            use_cases.subscribe(session, COMMAND_LINE, use_cases.WantedSubscription(own.id, project="bank"))
        use_cases.subscribe(session, confined, use_cases.WantedSubscription(own.id, project="shop"))
        assert len(use_cases.subscriptions(session, confined)) == 1


def test_people_subscribe_themselves_where_their_addresses_are_allowed(database: Database) -> None:
    mail = create(database, format_="email", values=MAIL)
    hook = create(database)
    ada, bob = person("ada", "viewer", SHOP), person("bob", "viewer", SHOP)

    def wanted(**more: Any) -> use_cases.WantedSubscription:
        return use_cases.WantedSubscription(mail.id, **{"personal": True, "recipient": "ada@example.com", **more})

    with database.session() as session:
        assert [one.id for one in use_cases.open_to_people(session, ada)] == [mail.id]
        made = use_cases.subscribe(session, ada, wanted(project="shop"))
        assert (made.owner_id, made.recipient) == (ada.user_id, "ada@example.com")
        assert use_cases.subscriptions(session, bob) == []
        for error, who, what in (
            (UsageError, ada, wanted(recipient="ada@evil.example")),
            (NotFoundError, ada, wanted(project="bank")),
            (NotFoundError, ada, use_cases.WantedSubscription(hook.id, personal=True, recipient="ada@example.com")),
            (NotFoundError, ada, use_cases.WantedSubscription(hook.id)),
            (RefusedError, ownerless("ci", "read"), wanted()),
        ):
            with pytest.raises(error):
                use_cases.subscribe(session, who, what)
        with pytest.raises(NotFoundError):
            use_cases.unsubscribe(session, bob, made.id)
        with pytest.raises(UsageError):
            use_cases.change_subscription(session, ada, made.id, use_cases.WantedSubscription(hook.id))
        use_cases.change_subscription(session, ada, made.id, wanted(digest="daily"))
        use_cases.unsubscribe(session, ada, made.id)
        assert use_cases.subscriptions(session, COMMAND_LINE) == []


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"kinds": ["no.such"]}, "kinds"),
        ({"kinds": ["test"]}, "kinds"),
        ({"condition": "event.severity =="}, "condition"),
        ({"condition": "1 + 1"}, "condition"),
        ({"condition": "event.no_such"}, "condition"),
        ({"condition": "image.size > 1"}, "condition"),
        ({"digest": "weekly"}, "digest"),
        ({"group_seconds": -1}, "group_seconds"),
        ({"quiet_from": "22:00"}, "quiet_to"),
        ({"quiet_from": "25:00", "quiet_to": "07:00"}, "quiet_from"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"recipient": "a@example.com"}, "recipient"),
    ],
)
def test_a_subscription_that_cannot_work_is_refused(database: Database, more: dict[str, Any], field: str) -> None:
    made = create(database)
    with database.session() as session, pytest.raises(UsageError) as refused:
        use_cases.subscribe(session, COMMAND_LINE, use_cases.WantedSubscription(made.id, **more))
    assert refused.value.field == field


def test_a_test_shows_what_the_receiver_answered_without_the_secret(database: Database) -> None:
    def echo(connection: socket.socket) -> None:
        data = connection.recv(65536)
        token = data.partition(b"Splunk ")[2].split(b"\r\n")[0]
        body = b"unknown token " + token
        connection.sendall(b"HTTP/1.1 403 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with listener(echo) as port:
        values = {"url": f"http://127.0.0.1:{port}", "token": "hunter22"}
        made = create(database, format_="splunk", values=values)
        tested = use_cases.send_test(database, SETTINGS, KEY, COMMAND_LINE, made.id)
    assert not tested.delivered
    assert "403" in tested.message
    assert tested.answer == "unknown token ***"
    assert "hunter22" not in text_of(database)


def test_a_test_that_arrives_ends_the_pause_of_its_channel(database: Database) -> None:
    """Otherwise what waits stays, although the person who tests has just seen that the receiver is back."""

    def accept(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with listener(accept) as port:
        made = create(database, values={"url": f"http://127.0.0.1:{port}/", "secret": HOOK})
        with database.session() as session:
            session.execute(notification_channel.update().values(failures=5, paused_until=9e9, message="away"))
        tested = use_cases.send_test(database, SETTINGS, KEY, COMMAND_LINE, made.id)
    assert tested.delivered
    with database.read() as session:
        found = channels.get(session, made.id)
    assert (found.failures, found.paused_until, found.message) == (0, None, "")


def test_a_test_goes_to_no_address_outside_of_the_channels_domains(database: Database) -> None:
    made = create(database, format_="email", values=MAIL)
    with pytest.raises(UsageError) as refused:
        use_cases.send_test(database, SETTINGS, KEY, COMMAND_LINE, made.id, "eve@evil.example")
    assert refused.value.field == "recipient"


def test_who_only_reads_subscribes_nothing_for_others(database: Database) -> None:
    made = create(database, project="shop")
    reader = person("ada", "viewer", SHOP)
    with database.session() as session, pytest.raises((RefusedError, NotFoundError)):
        use_cases.subscribe(session, reader, use_cases.WantedSubscription(made.id))
    with database.read() as session:
        assert channels.subscriptions(session) == ()


def test_deliveries_are_of_the_channels_that_the_actor_configures(database: Database) -> None:
    made = [create(database, project=name) for name in ("shop", "bank")]
    confined = ownerless("ci", "manage", "read", projects=SHOP)
    with database.session() as session:
        for each in made:
            use_cases.subscribe(session, COMMAND_LINE, use_cases.WantedSubscription(each.id, group_seconds=0))
        outbox.add(session, [replace(event(), project=name) for name in ("shop", "bank")])
    while delivery.route(database):
        pass
    with database.session() as session:
        session.execute(notification.update().values(state="dead"))
        everything = use_cases.deliveries(session, COMMAND_LINE).items
        own = use_cases.deliveries(session, confined).items
        assert {each.channel_id for each in everything} == {each.id for each in made}
        assert {each.channel_id for each in own} == {made[0].id}
        assert use_cases.deliveries(session, confined, channel_id=made[1].id).items == ()
        assert use_cases.deliveries(session, COMMAND_LINE, channel_id=made[1].id, states=("sent",)).items == ()
        hidden = next(each.uid for each in everything if each.channel_id == made[1].id)
        with pytest.raises(NotFoundError):
            use_cases.delivery(session, confined, hidden)
        with pytest.raises(NotFoundError):
            use_cases.replay(session, confined, hidden)
        assert use_cases.replay(session, confined, own[0].uid).state == "waiting"
        with pytest.raises(ConflictError) as again:
            use_cases.replay(session, confined, own[0].uid)
        assert again.value.reason == "not_dead"
