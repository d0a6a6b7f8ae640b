"""The Events page: what each delivery led to, and every refused event with its reason, as text."""

from __future__ import annotations

from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.store import registries
from scanner.store.deliveries import create_hook
from scanner.store.session import Database
from tests.web.conftest import KEY
from tests.web.pages.test_exemptions import Somebody
from tests.web.people import person
from tests.web.webhooks.test_receive import HOST, push, send


@pytest.fixture
def secret(database: Database) -> str:
    with database.session() as session:
        registry = registries.add(session, HOST, KEY)
        return create_hook(session, "lab", "distribution", registry.id, KEY)[1].reveal()


@pytest.fixture
def admin(app: OpenAPI, database: Database) -> Somebody:
    person(database, "ada", "admin")
    return Somebody(app, "ada")


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        (["push"], ["unreadable event", "an event is not an object"]),
        (push(repository=7)["events"], ["unreadable event", "target.repository is not a string of at most"]),
        (push(repository="../etc")["events"], ["../etc:1.4.2", "not an image reference"]),
        (push("registry:5000")["events"], ["shop/cart:1.4.2", "names a host other than", "Add registry:5000 as alias"]),
    ],
)
def test_a_refused_event_is_shown_with_its_reason(
    app: OpenAPI, admin: Somebody, secret: str, events: list[Any], shown: list[str]
) -> None:
    assert send(app, {"events": events}, secret).status_code == 202
    text = admin.see("/events")
    assert "0 images, 1 event refused" in text
    assert "<summary>1 refused</summary>" in text
    for part in shown:
        assert part in text


@pytest.mark.parametrize("part", ["host", "repository", "tag"])
def test_what_a_refused_event_says_is_text(app: OpenAPI, admin: Somebody, secret: str, part: str) -> None:
    lie = "<script>alert(1)</script>"
    events = push(lie)["events"] if part == "host" else push(**{part: lie})["events"]
    send(app, {"events": events}, secret)
    text = admin.see("/events")
    assert lie not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_many_refused_events_are_counted_and_the_first_are_shown(app: OpenAPI, admin: Somebody, secret: str) -> None:
    send(app, {"events": list(range(250))}, secret)
    text = admin.see("/events")
    assert "0 images, 250 events refused" in text
    assert text.count("unreadable event") == 20
    assert "and 80 more" in text


def test_without_manage_there_is_no_alias_button(app: OpenAPI, database: Database, secret: str) -> None:
    send(app, push("registry:5000"), secret)
    person(database, "val", "viewer", member_of=["default"])
    text = Somebody(app, "val").see("/events")
    assert "names a host other than" in text
    assert "as alias" not in text
