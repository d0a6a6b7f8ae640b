"""Every channel against a real receiver: what arrives, what a hostile text becomes, what an answer can do."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import json
import queue
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import time_machine
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.errors import UsageError
from scanner.model.notification import EventKind, Level
from scanner.notify import base, webhook
from scanner.notify.base import ChannelFormat, DeliveryError, Receipt, Target, redacted
from tests.scanner.notify.receivers import HOSTILE, event, listener, message, until_end
from tests.servers import Authority

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SETTINGS = Settings(public_url="https://dockwarden.example")


def channel(name: str) -> ChannelFormat:
    return catalog.channels()[name]


def target(values: dict[str, str], **secrets: str) -> Target:
    return Target(SETTINGS, values, {name: Secret(value) for name, value in secrets.items()})


@pytest.fixture(scope="module")
def listening_web() -> Iterator[HTTPServer]:
    with HTTPServer(host="127.0.0.1", port=0) as server:
        yield server


@pytest.fixture
def web(listening_web: HTTPServer) -> HTTPServer:
    listening_web.clear()
    return listening_web


def recorded(web: HTTPServer, answer: Callable[[Request], Response] = lambda request: Response("ok")) -> list[Request]:
    """Every request that arrives."""
    found: list[Request] = []

    def handle(request: Request) -> Response:
        request.get_data()
        found.append(request)
        return answer(request)

    web.expect_request(re.compile(".*")).respond_with_handler(handle)
    return found


def address(web: HTTPServer, path: str = "/") -> str:
    return f"http://127.0.0.1:{web.port}{path}"


# What holds for each


@pytest.mark.parametrize("form", catalog.channels().values(), ids=lambda form: form.id)
def test_a_channel_says_what_it_is(form: ChannelFormat) -> None:
    assert form.title and form.purpose and form.setup
    names = [one.name for one in form.fields]
    assert len(names) == len(set(names))
    for one in form.fields:
        assert re.fullmatch(r"[a-z_]+", one.name)
        assert one.label
        assert not (one.secret and (one.default or one.choices)), "a secret has no default"
        assert not one.choices or not one.pattern


SIMPLE: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "webhook": ({"url": "/hook"}, {"secret": KEY}),
    "slack": ({}, {"url": "/services/T1/B1/a-secret-path"}),
    "teams": ({}, {"url": "/workflows/a-secret-path"}),
    "mattermost": ({}, {"url": "/hooks/a-secret-path"}),
    "pagerduty": ({"url": "/v2/enqueue"}, {"routing_key": "R0000000000000000000"}),
    "opsgenie": ({"url": ""}, {"api_key": "a-secret-key"}),
    "splunk": ({"url": ""}, {"token": "a-secret-token"}),
    "cloudevents": ({"url": "/"}, {"token": "a-secret-token"}),
    "gelf": ({"address": "/gelf"}, {}),
    "github": ({"url": "", "repository": "shop/cart"}, {"token": "a-secret-token"}),
    "jira": ({"url": "", "project": "SEC", "username": "robot"}, {"token": "a-secret-token"}),
}


def simple(name: str, web: HTTPServer) -> Target:
    values, secrets = SIMPLE[name]
    values = {k: address(web, v or "/") if k in ("url", "address") else v for k, v in values.items()}
    return target(values, **{k: address(web, v) if k == "url" else v for k, v in secrets.items()})


def over_http() -> list[str]:
    return sorted(SIMPLE)


def test_every_channel_over_http_is_tried() -> None:
    """Or has a test of its own beside this one."""
    own = {
        name for name in catalog.channels() if Path(__file__).with_name(f"test_{name.replace('-', '_')}.py").is_file()
    }
    assert set(SIMPLE) == set(catalog.channels()) - {"email", "syslog"} - own


@dataclass
class KeepingReceiver:
    """Answers on each connection, and counts connections and messages. ``ends`` does what it does after an answer."""

    ends: Callable[[socket.socket], None] = lambda connection: None
    answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    connections: int = 0
    messages: int = 0

    def serve(self, connection: socket.socket) -> None:
        self.connections += 1
        with connection, connection.makefile("rb") as lines:
            while lines.readline():
                headers = dict(line.lower().split(b":", 1) for line in iter(lines.readline, b"\r\n"))
                lines.read(int(headers[b"content-length"]))
                self.messages += 1
                connection.sendall(self.answer)
                self.ends(connection)


def test_messages_that_are_sent_together_share_a_connection() -> None:
    receiver = KeepingReceiver()
    with listener(receiver.serve) as port:
        at = target({"url": f"http://127.0.0.1:{port}/"}, secret=KEY)
        with at.shared_connections():
            for _ in range(3):
                channel("webhook").deliver(message(), at)
        assert (receiver.messages, receiver.connections) == (3, 1)
        for _ in range(2):
            channel("webhook").deliver(message(), at)
        assert (receiver.messages, receiver.connections) == (5, 3)


def _shut(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "receiver",
    [
        KeepingReceiver(_shut),
        KeepingReceiver(_shut, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"),
        KeepingReceiver(_shut, b"HTTP/1.0 200 OK\r\n\r\nok"),
        KeepingReceiver(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more than was announced"),
    ],
    ids=["closes", "says that it closes", "HTTP/1.0", "says too much"],
)
def test_a_receiver_may_end_each_connection(receiver: KeepingReceiver) -> None:
    with listener(receiver.serve) as port:
        at = target({"url": f"http://127.0.0.1:{port}/"}, secret=KEY)
        with at.shared_connections():
            for _ in range(5):
                channel("webhook").deliver(message(), at)
    assert receiver.messages >= 5


@pytest.mark.parametrize("name", over_http())
def test_a_refusal_is_an_error_that_says_when_to_try_again(name: str, web: HTTPServer) -> None:
    recorded(web, lambda request: Response("slow down, a-secret-token", 429, {"Retry-After": "120"}))
    with pytest.raises(DeliveryError) as refused:
        channel(name).deliver(message(), simple(name, web))
    assert refused.value.retryable
    assert refused.value.retry_after == 120
    assert "429" in str(refused.value)
    assert "slow down" in refused.value.answer
    assert "secret" not in f"{refused.value}{refused.value!r}{refused.value.hint}"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120),
        ("Sunday, 01-Mar-26 12:02:00 GMT", 120),
        ("Sun Mar  1 12:02:00 2026", 120),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2099 12:00:00 GMT", 6 * 3600),
        ("999999999", 6 * 3600),
        ("soon", None),
        ("-1", None),
        ("1e3", None),
        ("Sun, 99 Mar 2026 12:02:00 GMT", None),
        ("\u0661\u0662", None),
    ],
)
def test_a_receiver_says_when_by_seconds_or_by_a_date(header: str, seconds: float | None) -> None:
    with time_machine.travel(datetime(2026, 3, 1, 12, tzinfo=UTC), tick=False):
        assert base._seconds(header) == seconds


def test_an_address_that_is_gone_is_not_tried_again(web: HTTPServer) -> None:
    recorded(web, lambda request: Response("", 410))
    with pytest.raises(DeliveryError) as refused:
        channel("webhook").deliver(message(), simple("webhook", web))
    assert not refused.value.retryable


@pytest.mark.parametrize("name", over_http())
def test_a_redirect_is_not_followed(name: str, web: HTTPServer) -> None:
    seen = recorded(web, lambda request: Response("", 307, {"Location": "http://169.254.169.254/latest/meta-data/"}))
    with pytest.raises(DeliveryError) as refused:
        channel(name).deliver(message(), simple(name, web))
    assert refused.value.reason == "redirect"
    assert not refused.value.retryable
    assert len(seen) == 1


@pytest.mark.parametrize("name", over_http())
def test_the_clouds_metadata_is_no_receiver(name: str) -> None:
    values, secrets = SIMPLE[name]
    place = "http://169.254.169.254/latest/"
    values = {k: place if k in ("url", "address") else v for k, v in values.items()}
    secrets = {k: place if k == "url" else v for k, v in secrets.items()}
    with pytest.raises(DeliveryError) as refused:
        channel(name).deliver(message(), target(values, **secrets))
    assert refused.value.reason == "address_refused"


@pytest.mark.parametrize("name", over_http())
def test_an_error_tells_no_address_of_a_hook(name: str) -> None:
    """A closed port: the library's text holds the address, and that of a hook is a secret."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    values, secrets = SIMPLE[name]
    place = f"http://127.0.0.1:{port}/a-secret-path"
    values = {k: place if k in ("url", "address") else v for k, v in values.items()}
    secrets = {k: place if k == "url" else v for k, v in secrets.items()}
    where = target(values, **secrets)
    with pytest.raises(DeliveryError) as refused:
        channel(name).deliver(message(), where)
    assert refused.value.retryable
    assert "a-secret" not in f"{refused.value}{refused.value.__cause__}"
    assert all(value not in repr(where.secrets) for value in secrets.values())


def test_an_endless_body_after_a_status_is_a_delivery() -> None:
    def endless(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b"A" * 0x10000 + b"\r\n")

    with listener(endless) as port:
        receipt = channel("slack").deliver(message(), target({}, url=f"http://127.0.0.1:{port}/"))
    assert receipt.status == "200"
    assert len(receipt.text) <= 1000


def test_an_answer_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SECONDS", 1.0)
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not over.wait(0.05):
            connection.sendall(b"a")

    with listener(drip) as port, pytest.raises(DeliveryError) as refused:
        channel("slack").deliver(message(), target({}, url=f"http://127.0.0.1:{port}/"))
    over.set()
    assert refused.value.reason == "receiver_slow"


def test_what_was_answered_is_shown_without_secrets() -> None:
    assert redacted("you sent Bearer hunter22", [Secret("hunter22"), Secret("abc")]) == "you sent Bearer ***"


@pytest.mark.parametrize(
    ("name", "values", "field"),
    [
        ("webhook", {"url": "https://x.example", "secret": "short"}, "secret"),
        ("webhook", {"url": "https://x.example", "secret": "whsk_" + "A" * 12}, "secret"),
        ("email", {"server": "smtp.example.com/x", "recipients": "a@b.example"}, "server"),
        ("email", {"server": "smtp.example.com", "recipients": "nobody"}, "recipients"),
        ("email", {"server": "smtp.example.com"}, "recipients"),
        (
            "email",
            {"server": "s.example", "recipients": "a@b.example", "username": "u", "password": "p", "security": "none"},
            "security",
        ),
        ("email", {"server": "s.example", "recipients": "a@b.example", "username": "u"}, "password"),
        ("syslog", {"address": "a b"}, "address"),
        ("syslog", {"address": "user@host:1"}, "address"),
        ("gelf", {"address": "tls://host/path"}, "address"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, values: dict[str, str], field: str) -> None:
    with pytest.raises(UsageError) as refused:
        channel(name).check(values)
    assert refused.value.field == field


# Webhook


def test_a_webhook_is_verified_by_the_standards_own_library(web: HTTPServer) -> None:
    seen = recorded(web)
    receipt = channel("webhook").deliver(message(event(item=HOSTILE)), simple("webhook", web))
    assert receipt == Receipt("200", "ok")
    body = standardwebhooks.Webhook(KEY).verify(seen[0].get_data(), dict(seen[0].headers.items(lower=True)))
    assert body["type"] == "vulnerability.new"
    assert body["data"]["events"][0]["item"] == HOSTILE
    assert seen[0].headers["webhook-id"] == "msg_1"
    forged = seen[0].get_data().replace(b"critical", b"harmless")
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        standardwebhooks.Webhook(KEY).verify(forged, dict(seen[0].headers.items(lower=True)))


def test_a_webhook_may_sign_with_ed25519() -> None:
    key = Ed25519PrivateKey.generate()
    secret = Secret("whsk_" + base64.b64encode(key.private_bytes_raw()).decode())
    headers = webhook.signature_headers("msg_1", b"{}", secret, at=1700000000)
    version, signature = headers["webhook-signature"].split(",")
    assert version == "v1a"
    key.public_key().verify(base64.b64decode(signature), b"msg_1.1700000000.{}")


# Chat


def test_slack_gets_escaped_text(web: HTTPServer) -> None:
    seen = recorded(web)
    events = [event(item=f"{HOSTILE}{n}") for n in range(80)]
    channel("slack").deliver(message(*events, count=400), simple("slack", web))
    body = seen[0].get_json()
    text = json.dumps(body, ensure_ascii=False)
    assert "<img" not in text
    assert "&lt;img" in text
    assert "and 350 more" in text
    assert all(len(block["text"]["text"]) <= 3000 for block in body["blocks"])
    assert len(body["blocks"]) <= 50


def test_teams_gets_a_card_of_a_size_that_it_takes(web: HTTPServer) -> None:
    seen = recorded(web)
    channel("teams").deliver(message(*[event(item=f"{HOSTILE * 4}{n}") for n in range(80)]), simple("teams", web))
    card = seen[0].get_json()["attachments"][0]["content"]
    assert card["type"] == "AdaptiveCard"
    assert len(seen[0].get_data()) < 28 << 10
    assert "](http://evil" not in card["body"][1]["text"]
    assert card["actions"][0]["url"].startswith("https://dockwarden.example/")


def test_mattermost_gets_no_mentions(web: HTTPServer) -> None:
    seen = recorded(web)
    values = {"channel": "security"}
    where = replace(simple("mattermost", web), values=values)
    channel("mattermost").deliver(message(event(item=HOSTILE), event()), where)
    body = seen[0].get_json()
    assert body["channel"] == "security"
    assert "@channel" not in body["attachments"][0]["text"]


# Alerts and logs


@pytest.mark.parametrize("resolved", [False, True])
def test_pagerduty_triggers_and_resolves_one_incident(web: HTTPServer, resolved: bool) -> None:
    seen = recorded(web, lambda request: Response('{"status":"success"}', 202))
    channel("pagerduty").deliver(message(event(resolved=resolved)), simple("pagerduty", web))
    channel("pagerduty").deliver(message(identifier="msg_2"), simple("pagerduty", web))
    first, second = (request.get_json() for request in seen)
    assert first["event_action"] == ("resolve" if resolved else "trigger")
    assert first["dedup_key"] == second["dedup_key"]
    assert first["payload"]["severity"] == "critical"


def test_opsgenie_opens_and_closes_one_alert(web: HTTPServer) -> None:
    seen = recorded(web, lambda request: Response("{}", 202))
    channel("opsgenie").deliver(message(), simple("opsgenie", web))
    channel("opsgenie").deliver(message(event(resolved=True)), simple("opsgenie", web))
    opened, closed = seen
    assert opened.headers["Authorization"] == "GenieKey a-secret-key"
    assert opened.get_json()["priority"] == "P1"
    assert closed.path == f"/v2/alerts/{opened.get_json()['alias']}/close"


def test_splunk_gets_one_event_for_each(web: HTTPServer) -> None:
    seen = recorded(web, lambda request: Response('{"text":"Success","code":0}'))
    channel("splunk").deliver(message(event(), event(item="other")), simple("splunk", web))
    assert seen[0].path == "/services/collector/event"
    assert seen[0].headers["Authorization"] == "Splunk a-secret-token"
    events = [json.loads(line) for line in seen[0].get_data().splitlines()]
    assert [one["event"]["item"] for one in events] == ["registry.example.com/shop/cart:1", "other"]


@pytest.mark.parametrize("mode", ["batched", "structured"])
def test_cloudevents_have_the_required_attributes(web: HTTPServer, mode: str) -> None:
    seen = recorded(web, lambda request: Response("", 202))
    where = simple("cloudevents", web)
    channel("cloudevents").deliver(message(event(), event()), replace(where, values={**where.values, "mode": mode}))
    assert len(seen) == (1 if mode == "batched" else 2)
    bodies = [request.get_json(force=True) for request in seen]
    events = bodies[0] if mode == "batched" else bodies
    for one in events:
        assert {"specversion", "id", "source", "type"} <= one.keys()
        assert one["type"] == "io.dockwarden.vulnerability.new"
    assert len({one["id"] for one in events}) == 2


def test_gelf_over_http(web: HTTPServer) -> None:
    seen = recorded(web, lambda request: Response("", 202))
    channel("gelf").deliver(message(), simple("gelf", web))
    body = seen[0].get_json()
    assert body["version"] == "1.1"
    assert body["level"] == 2
    assert body["_severity"] == "critical"
    assert "_id" not in body


def _secured(authority: Authority, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(name))
    return context


@pytest.mark.parametrize("scheme", ["tls", "tcp"])
def test_gelf_over_a_connection(authority: Authority, scheme: str) -> None:
    got: queue.Queue[bytes] = queue.Queue()
    context = _secured(authority, "gelf") if scheme == "tls" else None
    with listener(lambda connection: got.put(until_end(connection)), context) as port:
        values = {"address": f"{scheme}://localhost:{port}", "ca_pem": authority.file.read_text()}
        channel("gelf").deliver(message(event(), event()), target(values))
        records = got.get(timeout=60).split(b"\0")
    assert [json.loads(one)["version"] for one in records[:2]] == ["1.1", "1.1"]
    assert records[2:] == [b""]


def test_syslog_over_tls(authority: Authority) -> None:
    got: queue.Queue[bytes] = queue.Queue()
    with listener(lambda connection: got.put(until_end(connection)), _secured(authority, "syslog")) as port:
        values = {"address": f"localhost:{port}", "ca_pem": authority.file.read_text()}
        channel("syslog").deliver(message(event(item=HOSTILE, project='a"b]c\\'), event()), target(values))
        data = got.get(timeout=60)
    lines = []
    while data:  # RFC 5425: octet counting
        size, _, data = data.partition(b" ")
        lines.append(data[: int(size)].decode())
        data = data[int(size) :]
    assert len(lines) == 2
    head = r"<130>1 2026-03-01T12:00:00\.000000Z dockwarden\.example dockwarden - vulnerability\.new "
    assert re.match(
        head + r"\[dockwarden@32473 id=\"msg_1-0\" kind=\"vulnerability\.new\" project=\"a\\\"b\\\]c\\\\\"", lines[0]
    )
    assert not any(ord(c) < 32 for c in lines[0])


def log_server(name: str, port: int, authority: Authority) -> tuple[ChannelFormat, Target]:
    scheme = "tls://" if name == "gelf" else ""
    values = {"address": f"{scheme}localhost:{port}", "ca_pem": authority.file.read_text()}
    return channel(name), target(values)


@pytest.mark.parametrize("name", ["syslog", "gelf"])
def test_a_log_server_that_reads_late_loses_nothing(
    name: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has sent something that we never asked for, as TLS 1.3 does with its tickets. Unread, that would turn our
    close into a reset, and the records that it has not read yet would be gone.
    """
    monkeypatch.setattr(base, "_END_SECONDS", 0.3)
    closed, got = threading.Event(), queue.Queue[bytes]()

    def late(connection: socket.socket) -> None:
        connection.sendall(b"welcome" * 1000)
        closed.wait(60)
        got.put(until_end(connection))

    # More than the server's buffer holds.
    events = [event(item=f"registry.example.com/{number:0500}") for number in range(500)]
    with listener(late, _secured(authority, name)) as port:
        form, there = log_server(name, port, authority)
        form.deliver(message(*events), there)
        closed.set()
        data = got.get(timeout=60)
    assert data.count(b"registry.example.com/") == 500


@pytest.mark.parametrize("name", ["syslog", "gelf"])
def test_a_log_server_that_wants_a_client_certificate_is_an_error(name: str, authority: Authority) -> None:
    """In TLS 1.3 it says so after the handshake, when everything seems to be sent."""
    context = _secured(authority, name)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.file.read_text())
    with listener(until_end, context) as port:
        form, there = log_server(name, port, authority)
        # A reset can overtake what the server says. Then its reason is lost, but not the message: it is sent again.
        with pytest.raises(DeliveryError, match=r"requires a client certificate|cannot be reached") as refused:
            form.deliver(message(), there)
    assert refused.value.retryable


def test_a_log_server_that_resets_is_an_error() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with listener(reset) as port, pytest.raises(DeliveryError, match="cannot be reached"):
        channel("gelf").deliver(message(), target({"address": f"tcp://127.0.0.1:{port}"}))


@pytest.mark.parametrize("name", ["syslog", "gelf"])
@pytest.mark.parametrize("reads", [True, False])
def test_a_log_server_that_drips_or_reads_nothing_is_left(
    name: str, reads: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says a byte now and then for ever, or takes nothing of a message that no buffer holds."""
    monkeypatch.setattr(base, "_END_SECONDS", 0.3)
    if not reads:
        monkeypatch.setattr(base, "SECONDS", 1.0)
    over = threading.Event()

    def slow(connection: socket.socket) -> None:
        while reads and not over.wait(0.05):
            connection.sendall(b".")
        over.wait(60)

    large = [event(data={"text": "a" * 100_000}, item="b" * 1900) for _ in range(1 if reads else 3000)]
    with listener(slow, _secured(authority, name)) as port:
        form, there = log_server(name, port, authority)
        if reads:
            assert form.deliver(message(*large), there).status == "sent"
        else:
            with pytest.raises(DeliveryError):
                form.deliver(message(*large), there)
    over.set()


def test_syslog_without_a_trusted_certificate_is_refused(authority: Authority) -> None:
    with listener(until_end, _secured(authority, "untrusted")) as port, pytest.raises(DeliveryError) as refused:
        channel("syslog").deliver(message(), target({"address": f"localhost:{port}"}))
    assert refused.value.reason == "tls"


# E-mail


class Mailbox:
    """An SMTP server that keeps what it takes."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.letters.append((session, envelope))
        return "250 2.0.0 queued"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: Any, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"correct horse", handled=False)


class AnyPort(Controller):
    """A controller on whatever port is free: its own looks for itself on port 0."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def mail(authority: Authority) -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    server = AnyPort(
        box,
        hostname="127.0.0.1",
        port=0,
        loop=asyncio.new_event_loop(),
        tls_context=_secured(authority, "smtp"),
        require_starttls=True,
        auth_required=True,
        authenticator=box.authenticate,
    )
    server.start()
    yield box, server.port
    server.stop(no_assert=True)


def letters_to(port: int, authority: Authority, to: str = "a@example.com\nb@example.com", **more: str) -> Target:
    values = {"server": f"localhost:{port}", "sender": "dockwarden@example.com", "recipients": to, "username": "robot"}
    values |= {"ca_pem": authority.file.read_text(), "domains": "example.com", **more}
    return target(values, password="correct horse")


def to_port(port: int, **more: str) -> dict[str, str]:
    return {"server": f"127.0.0.1:{port}", "sender": "d@example.com", "recipients": "a@example.com", **more}


def test_a_letter_is_sent_over_tls_and_signed_in(mail: tuple[Mailbox, int], authority: Authority) -> None:
    box, port = mail
    receipt = channel("email").deliver(message(event(item=HOSTILE), event()), letters_to(port, authority))
    assert receipt.status == "250"
    (session, envelope) = box.letters[0]
    assert session.ssl is not None
    assert box.logins == [(b"robot", b"correct horse")]
    letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert letter["Message-ID"] == "<msg_1@example.com>"
    assert letter["Bcc"] is None
    assert envelope.rcpt_tos == ["a@example.com", "b@example.com"]
    assert "<img" not in letter.get_body(("html",)).get_content()  # type: ignore[union-attr]


def test_a_title_cannot_add_headers(mail: tuple[Mailbox, int], authority: Authority) -> None:
    box, port = mail
    channel("email").deliver(message(event(headline=HOSTILE)), letters_to(port, authority))
    letter = email.message_from_bytes(box.letters[0][1].content, policy=email.policy.default)
    assert letter["Bcc"] is None
    assert "\n" not in letter["Subject"]


def test_a_person_gets_their_own_letter(mail: tuple[Mailbox, int], authority: Authority) -> None:
    box, port = mail
    channel("email").deliver(message(recipient="me@example.com"), letters_to(port, authority))
    assert box.letters[0][1].rcpt_tos == ["me@example.com"]


@pytest.mark.parametrize(
    "mailbox", ["me@example.com", "me@EXAMPLE.com", "me@evil.example", "me", "a@example.com\nb@x.y"]
)
def test_people_subscribe_with_allowed_domains_only(mailbox: str) -> None:
    if mailbox.lower() == "me@example.com":
        channel("email").check_recipient(mailbox, {"domains": "example.com\nexample.org"})
        return
    with pytest.raises(UsageError) as refused:
        channel("email").check_recipient(mailbox, {"domains": "example.com\nexample.org"})
    assert refused.value.field == "recipient"


def test_channels_without_people_take_no_recipient() -> None:
    with pytest.raises(UsageError):
        channel("slack").check_recipient("me@example.com", {})


def test_a_mail_server_that_refuses_says_why(mail: tuple[Mailbox, int], authority: Authority) -> None:
    _, port = mail
    with pytest.raises(DeliveryError) as refused:
        channel("email").deliver(message(), letters_to(port, authority, "nobody@example.com"))
    assert "no such mailbox" in refused.value.answer
    assert not refused.value.retryable
    wrong = replace(letters_to(port, authority), secrets={"password": Secret("battery staple")})
    with pytest.raises(DeliveryError) as refused:
        channel("email").deliver(message(), wrong)
    assert refused.value.retryable, "somebody changes the password, and what waits is sent"
    assert "battery" not in f"{refused.value}{refused.value.answer}"


def test_a_password_may_have_any_letter(mail: tuple[Mailbox, int], authority: Authority) -> None:
    box, port = mail
    there = replace(letters_to(port, authority, username="höst"), secrets={"password": Secret("pässwörd €")})
    with pytest.raises(DeliveryError, match="refuses the user name or password") as refused:
        channel("email").deliver(message(), there)
    assert ("höst".encode(), "pässwörd €".encode()) in box.logins
    assert "pässwörd" not in f"{refused.value}{refused.value.answer}"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("challenge", [b"334 !!!!", b"334", b"334 /w==", b"334-a", b"334 " + b"QUFB" * 2000])
def test_a_challenge_that_cannot_be_read_is_an_error(mechanism: str, challenge: bytes, authority: Authority) -> None:
    def hostile(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        while data := connection.recv(10_000):
            is_greeting = data.startswith(b"ehlo")
            connection.sendall(b"250-x\r\n250 AUTH %s\r\n" % mechanism.encode() if is_greeting else challenge + b"\r\n")

    with listener(hostile, _secured(authority, "smtp")) as port, pytest.raises(DeliveryError):
        channel("email").deliver(message(), letters_to(port, authority, security="tls", username="ü"))


@pytest.mark.parametrize("after", [b"", b"220 go\r\n250 injected\r\n", b"454 not now\r\n", b"220 go\r\n"])
def test_a_connection_that_breaks_when_tls_begins_is_an_error(after: bytes) -> None:
    """Nothing of the letter or the password is sent, and what came in the clear is no answer of the secured server."""
    seen: list[bytes] = []

    def broken(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        while data := connection.recv(10_000):
            seen.append(data)
            if b"STARTTLS" in data.upper():
                connection.sendall(after)
                return
            connection.sendall(b"250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n")

    with listener(broken) as port, pytest.raises(DeliveryError) as refused:
        channel("email").deliver(message(), target(to_port(port, username="u"), password="correct horse"))
    assert refused.value.retryable
    assert not any(b"AUTH" in data or b"MAIL" in data for data in seen)


def test_a_mail_server_that_leaves_after_it_took_the_letter_has_taken_it(authority: Authority) -> None:
    """An error would send the letter again."""

    def leaves(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        is_text = False
        for line in connection.makefile("rb"):
            if is_text:
                is_text = line != b".\r\n"
                connection.sendall(b"" if is_text else b"250 OK\r\n")
            elif line.upper().startswith(b"QUIT"):
                return
            else:
                is_text = line.upper().startswith(b"DATA")
                connection.sendall(b"354 go on\r\n" if is_text else b"250 OK\r\n")

    with listener(leaves, _secured(authority, "smtp")) as port:
        there = replace(letters_to(port, authority, security="tls", username=""), secrets={})
        assert channel("email").deliver(message(), there).status == "250"


def test_a_letter_is_not_sent_in_the_clear_instead() -> None:
    """A server, or somebody between, that does not offer STARTTLS."""

    def plain(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        while data := connection.recv(1000):
            seen.append(data)
            connection.sendall(b"250 plain.example\r\n")

    seen: list[bytes] = []
    with listener(plain) as port, pytest.raises(DeliveryError):
        channel("email").deliver(message(), target(to_port(port, username="u"), password="correct horse"))
    assert not any(b"AUTH" in data or b"MAIL" in data for data in seen)


@pytest.mark.parametrize("answer", [b"220-more\r\n" * 1000, b"2" * 10000, b"\xff\x00\r\n"])
def test_a_mail_server_that_talks_for_ever_is_left(answer: bytes) -> None:
    def endless(connection: socket.socket) -> None:
        while True:
            connection.sendall(answer)

    with listener(endless) as port, pytest.raises(DeliveryError) as refused:
        channel("email").deliver(message(), target(to_port(port, security="none")))
    assert len(refused.value.answer) <= 1000


def test_a_mail_server_that_drips_is_left(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    monkeypatch.setattr(base, "SECONDS", 1.0)
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        while not over.wait(0.05):
            connection.sendall(b"2")

    with listener(drip, _secured(authority, "drip")) as port, pytest.raises(DeliveryError):
        channel("email").deliver(message(), letters_to(port, authority, security="tls"))
    over.set()


# Tickets


class Tickets:
    """What GitHub's and Jira's APIs do with one project's issues, as far as the channels use them."""

    def __init__(self) -> None:
        self.issues: list[dict[str, Any]] = []

    def github(self, request: Request) -> Response:
        path, method = request.path.removeprefix("/repos/shop/cart/issues"), request.method
        if path == "" and method == "GET":
            found = [one for one in self.issues if request.args["labels"] in one["labels"]]
            return _json([{k: v for k, v in one.items() if k != "comments"} for one in found][:1])
        if path == "":
            body = request.get_json()
            self.issues.append({"number": len(self.issues) + 1, "state": "open", "comments": [], **body})
            return _json(self.issues[-1], 201)
        issue = self.issues[int(path.split("/")[1]) - 1]
        if path.endswith("/comments"):
            if method == "POST":
                issue["comments"].append(request.get_json()["body"])
            return _json([{"body": text} for text in issue["comments"]])
        issue.update(request.get_json())
        return _json(issue)

    def jira(self, request: Request) -> Response:
        path, method = request.path.removeprefix("/rest/api/2/"), request.method
        if path == "search/jql":
            return _json({}, 404)
        if path == "search":
            mark = re.findall(r'labels = "([^"]+)"', request.args["jql"])[0]
            found = [one for one in self.issues if mark in one["labels"]]
            shown = [
                {"key": f"SEC-{one['number']}", "fields": {"status": {"statusCategory": {"key": one["state"]}}}}
                for one in found[-1:]
            ]
            return _json({"issues": shown})
        if path == "issue":
            given = request.get_json()["fields"]
            self.issues.append({"number": len(self.issues) + 1, "state": "new", "comments": [], **given})
            return _json({"key": f"SEC-{len(self.issues)}"}, 201)
        issue = self.issues[int(path.split("/")[1].split("-")[1]) - 1]
        if path.endswith("/comment"):
            if method == "POST":
                issue["comments"].append(request.get_json()["body"])
            return _json({"comments": [{"body": text} for text in issue["comments"]]})
        states = {"11": "new", "31": "done"}
        if method == "POST":
            issue["state"] = states[request.get_json()["transition"]["id"]]
            return Response("", 204)
        offered = [{"id": k, "to": {"statusCategory": {"key": v}}} for k, v in states.items()]
        return _json({"transitions": [{"id": "1"}, *offered]})


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")


@pytest.mark.parametrize(("name", "ended", "open_again"), [("github", "closed", "open"), ("jira", "done", "new")])
def test_one_ticket_is_opened_updated_closed_and_opened_again(
    web: HTTPServer, name: str, ended: str, open_again: str
) -> None:
    tickets = Tickets()
    recorded(web, getattr(tickets, name))
    form, where = channel(name), simple(name, web)
    form.deliver(message(event(item=HOSTILE), identifier="m1"), where)
    form.deliver(message(event(item=HOSTILE), identifier="m1"), where)  # killed before it was recorded: again
    form.deliver(message(event(item="another"), identifier="m2"), where)
    form.deliver(message(event(item="another"), identifier="m2"), where)
    (issue,) = tickets.issues
    assert sum("another" in text for text in issue["comments"]) == 1, "a repeated message is one comment"
    text = issue["body"] if name == "github" else issue["description"]
    assert not re.search(r"(?<!\\)\[a", text), "a foreign text makes no link"
    assert "\r" not in text
    assert name != "github" or not re.search(r"(?<!\\)<img", text)
    form.deliver(message(event(resolved=True, item=""), identifier="m3"), where)
    assert issue["state"] == ended
    form.deliver(message(event(), identifier="m4"), where)
    assert issue["state"] == open_again
    other = event(subject="CVE-2026-9999", headline="CVE-2026-9999 (critical) in zlib")
    form.deliver(message(other, identifier="m5"), where)
    assert len(tickets.issues) == 2


NONSENSE = ('[{"number":"1/../2"}]', '{"issues":[{"key":"../../x"}]}', "[]", "{}", "null", "<html>", "[" * 5000)


@pytest.mark.parametrize("name", ["github", "jira"])
@pytest.mark.parametrize("answer", NONSENSE)
def test_a_tracker_that_answers_nonsense_is_an_error(web: HTTPServer, name: str, answer: str) -> None:
    recorded(web, lambda request: Response(answer, mimetype="application/json"))
    with pytest.raises(DeliveryError):
        channel(name).deliver(message(), simple(name, web))


@pytest.mark.parametrize("name", ["github", "jira"])
def test_nothing_is_opened_to_be_closed(web: HTTPServer, name: str) -> None:
    tickets = Tickets()
    recorded(web, getattr(tickets, name))
    channel(name).deliver(message(event(resolved=True)), simple(name, web))
    assert tickets.issues == []


def test_levels_and_kinds_have_names() -> None:
    assert [level.rank for level in Level] == [0, 1, 2, 3]
    assert all(kind.label for kind in EventKind)
