"""Notifications on pages and in the API: from nothing to a message in the channel, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.config import Settings
from scanner.store import channels, notifications, outbox
from scanner.store.session import Database
from scanner.worker.notifier import Notifier
from tests.scanner.notify.receivers import event, listener
from tests.web.conftest import Api
from tests.web.pages.test_exemptions import Somebody
from tests.web.people import person

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Receiver:
    """Takes every webhook, or refuses it."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.status = 200

    def serve(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
        while len(body) < size:
            body += connection.recv(65536)
        self.got.append(body)
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 11\r\n\r\n<b>done</b>" % self.status)


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    made = Receiver()
    with listener(made.serve) as port:
        yield made, f"http://127.0.0.1:{port}/hook"


@pytest.fixture
def admin(app: OpenAPI, database: Database) -> Somebody:
    person(database, "ada", "admin")
    return Somebody(app, "ada")


@pytest.fixture
def lane(settings: Settings, database: Database) -> Iterator[None]:
    """The threads of a worker's lane ``notify``."""
    over = threading.Event()
    threads = Notifier(settings, database, "w", over.is_set).threads()
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join(60)


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, "it did not happen within a minute"
        time.sleep(0.05)


def add(admin: Somebody, url: str) -> str:
    """A channel by the form. Returns its page."""
    answer = admin("/notifications/channels", format="webhook", name="Ops", url=url, secret=SECRET)
    assert answer.status_code == 303, answer.text
    return urlsplit(answer.headers["Location"]).path


def test_from_nothing_to_a_message(
    admin: Somebody, database: Database, receiver: tuple[Receiver, str], lane: None
) -> None:
    hook, url = receiver
    assert "No channel yet" in admin.see("/notifications")
    place = add(admin, url)
    assert "Nothing is sent here yet" in admin.see(place)
    assert admin(f"{place}/test").status_code == 303
    shown = admin.see(place)
    assert "The test was delivered" in shown
    assert "&lt;b&gt;done&lt;/b&gt;" in shown, "the answer is shown, and is text"
    assert "The test was delivered" not in admin.see(place), "once"
    identifier = place.rsplit("/", 1)[1]
    answer = admin("/notifications/subscriptions", channel=identifier, kinds="vulnerability.new", group_minutes="0")
    assert answer.status_code == 303
    with database.session() as session:
        outbox.add(session, [event()])
    wait_for(lambda: len(hook.got) == 2)
    assert json.loads(hook.got[1])["data"]["events"][0]["subject"] == "CVE-2026-0001"
    wait_for(lambda: "Sent" in admin.see("/notifications/deliveries"))
    with database.read() as session:
        uid = notifications.list_notifications(session, None).items[0].uid
    assert "CVE-2026-0001 (critical) in openssl" in admin.see(f"/notifications/deliveries/{uid}")
    assert "Delivers" in admin.see("/notifications")
    for page in ("/notifications", place, f"/notifications/deliveries/{uid}", "/audit-log"):
        assert SECRET not in admin.see(page)
        assert SECRET[6:] not in admin.see(page)


def test_a_dead_letter_is_shown_with_its_reason_and_sent_again(
    admin: Somebody, api: Api, database: Database, receiver: tuple[Receiver, str], lane: None
) -> None:
    hook, url = receiver
    hook.status = 422
    place = add(admin, url)
    identifier = place.rsplit("/", 1)[1]
    assert "No dead letters" in admin.see("/notifications/deliveries?state=dead")
    made = api("POST", "/notifications/subscriptions", {"channel": identifier, "group_seconds": 0})
    assert made.status_code == 201, made.text
    with database.session() as session:
        outbox.add(session, [event()])
    wait_for(lambda: bool(api("GET", "/notifications?state=dead").json["items"]))
    shown = admin.see(place)
    assert "Dead letter" in shown
    assert "422" in shown
    (dead,) = api("GET", "/notifications?state=dead").json["items"]
    assert (dead["answer"], dead["reason"]) == ("<b>done</b>", "receiver_refused")
    hook.status = 200
    assert api("POST", f"/notifications/{dead['id']}/replay", {}).status_code == 200
    wait_for(lambda: api("GET", f"/notifications/{dead['id']}").json["state"] == "sent")
    assert api("POST", f"/notifications/{dead['id']}/replay", {}).status_code == 409
    metrics = admin.see("/metrics")
    assert 'dockwarden_notifications{channel="webhook",outcome="sent"} 1.0' in metrics
    assert "dockwarden_notification_oldest_pending_seconds 0.0" in metrics


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"url": "http://169.254.169.254/"}, ""),
        ({"url": "ftp://x"}, "url"),
        ({"secret": "short"}, "secret"),
        ({"name": ""}, "name"),
    ],
)
def test_a_refused_channel_comes_back_without_its_secret(
    admin: Somebody, database: Database, given: dict[str, str], field: str
) -> None:
    typed = {"format": "webhook", "name": "Ops", "url": "http://127.0.0.1:9/x", "secret": SECRET, **given}
    answer = admin("/notifications/channels", **typed)
    assert answer.status_code == 422
    if field:
        assert re.search(rf'name="{field}"[^>]*aria-invalid="true"', answer.text)
    assert typed["secret"] not in answer.text.replace("must not", "")
    assert typed["url"] in answer.text
    with database.read() as session:
        assert channels.list_channels(session) == ()


def test_every_format_has_a_form(admin: Somebody, api: Api) -> None:
    for form in api("GET", "/notifications/formats").json["items"]:
        shown = admin.see(f"/notifications/channels/new?format={form['id']}")
        assert all(f'name="{one["name"]}"' in shown for one in form["fields"])
    assert "there is no such channel format" in admin.see("/notifications/channels/new?format=none")


def test_a_person_subscribes_and_ends_it(app: OpenAPI, database: Database, admin: Somebody) -> None:
    given: dict[str, Any] = {"server": "127.0.0.1:2525", "sender": "d@example.com", "domains": "example.com"}
    answer = admin("/notifications/channels", format="email", name="Mail", security="none", **given)
    assert answer.status_code == 303, answer.text
    identifier = answer.headers["Location"].rsplit("/", 1)[1]
    person(database, "vic", "viewer")
    vic = Somebody(app, "vic")
    assert "Subscribe yourself" in vic.see("/notifications")
    assert vic(f"/notifications/channels/{identifier}/test").status_code == 403
    form = {"channel": identifier, "personal": "1", "recipient": "vic@evil.example", "quiet_from": "22:00"}
    refused = vic("/notifications/subscriptions", **form, quiet_to="07:00")
    assert refused.status_code == 422
    assert re.search(r'name="recipient"[^>]*aria-invalid="true"', refused.text)
    assert "vic@evil.example" in refused.text
    answer = vic("/notifications/subscriptions", **{**form, "recipient": "vic@example.com"}, quiet_to="07:00")
    assert answer.status_code == 303
    shown = vic.see("/notifications")
    assert "vic@example.com" in shown
    assert "quiet 22:00 to 07:00 UTC" in shown
    place = re.findall(r'href="(/notifications/subscriptions/[0-9a-f-]{36})"', shown)[0]
    assert 'value="vic@example.com"' in vic.see(place)
    assert vic(f"{place}/remove").status_code == 303
    assert "No subscription yet" in vic.see("/notifications")


def test_the_api_shows_no_secret_and_changes_a_channel(api: Api, receiver: tuple[Receiver, str]) -> None:
    _, url = receiver
    body = {"name": "Ops", "format": "webhook", "settings": {"url": url, "secret": SECRET}}
    made = api("POST", "/notifications/channels", body)
    assert made.status_code == 201, made.text
    assert made.json["has_secrets"] is True
    assert made.json["settings"] == {"url": url}
    place = f"/notifications/channels/{made.json['id']}"
    changed = api("PUT", place, {"name": "New", "settings": {"url": url}})
    assert changed.json["name"] == "New"
    tested = api("POST", f"{place}/test", {})
    assert (tested.json["delivered"], tested.json["status"], tested.json["answer"]) == (True, "200", "<b>done</b>")
    assert api("POST", f"{place}/disable", {}).json["disabled"] is True
    assert SECRET not in api("GET", "/audit-log").text
    assert api("DELETE", place).status_code == 204
    assert api("GET", place).status_code == 404
