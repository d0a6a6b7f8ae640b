"""Webhooks: what a format requires of a new one, and how a secret is replaced without losing a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError, UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.services import registries, webhooks
from scanner.store import deliveries, scans
from scanner.store import registries as stored

KEY = Secret("a secret key for tests, long enough")
HOST, OTHER_HOST = "registry.example.com", "push.example.com"


@dataclass(frozen=True)
class Form:
    """The requirements of a format."""

    authenticity: str = "header"
    sender_label: str = ""
    sender_pattern: str = ".*"
    sender_example: str = ""
    sender_required: bool = False


HEADER, BODY = Form(), Form(authenticity="signature")
SIGNED = Form("signature", "Topic", r"arn:[a-z:]+", "arn:aws:sns", sender_required=True)
FORMS = {"header": HEADER, "body": BODY, "signed": SIGNED}


@pytest.fixture
def session(session: Connection) -> Connection:
    registries.add(session, COMMAND_LINE, KEY, HOST)
    return session


def create(session: Connection, format_: str = "header", **given: Any) -> deliveries.HookView:
    (registry,) = stored.list_registries(session)
    return webhooks.create(session, COMMAND_LINE, KEY, registry.id, format_, FORMS, **given)[0]


@pytest.mark.parametrize(
    ("format_", "given", "field"),
    [
        ("none", {}, "format"),
        ("header", {"header": "Not a header"}, "header"),
        ("header", {"name": "line\nbreak"}, "name"),
        ("body", {"header": "X-Token"}, "header"),
        ("header", {"sender": "arn:aws"}, "sender"),
        ("signed", {}, "sender"),
        ("signed", {"sender": "https://attacker.example.com"}, "sender"),
    ],
)
def test_what_a_format_does_not_allow_names_its_field(
    session: Connection, format_: str, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(UsageError) as refused:
        create(session, format_, **given)
    assert refused.value.field == field
    assert deliveries.list_hooks(session, None) == ()


def test_what_a_format_allows_is_stored(session: Connection) -> None:
    assert create(session, header="X-Token").header == "X-Token"
    assert create(session, "signed", sender="arn:aws:sns").sender == "arn:aws:sns"
    assert create(session).name == f"pushes of {HOST}"


def test_a_rotation_keeps_one_of_two_secrets(session: Connection) -> None:
    hook = create(session)
    (first,) = deliveries.hooks(session, "header", KEY)[0].secrets
    for keep in ("old", "new"):
        _, second = webhooks.rotate(session, COMMAND_LINE, KEY, hook.id)
        assert deliveries.hooks(session, "header", KEY)[0].secrets == (second, first)
        with pytest.raises(ConflictError) as rotating:
            webhooks.rotate(session, COMMAND_LINE, KEY, hook.id)
        assert rotating.value.reason == "rotating"
        webhooks.finish(session, COMMAND_LINE, KEY, hook.id, keep)  # type: ignore[arg-type]
        assert deliveries.hooks(session, "header", KEY)[0].secrets == (first if keep == "old" else second,)
    with pytest.raises(ConflictError) as one:
        webhooks.finish(session, COMMAND_LINE, KEY, hook.id)
    assert one.value.reason == "not_rotating"
    webhooks.set_disabled(session, COMMAND_LINE, hook.id, True)
    assert deliveries.hooks(session, "header", KEY) == (), "a disabled webhook takes no delivery"


def test_the_host_of_refused_events_becomes_an_alias_and_their_images_are_scanned(session: Connection) -> None:
    """The registry was told that the delivery was taken, and does not repeat it."""
    hook = create(session)
    event = deliveries.RefusedEvent(deliveries.UNKNOWN_REGISTRY, "unknown", OTHER_HOST, "shop/cart", "1", key="k")
    rest = deliveries.RefusedEvent("bad_event", "no digest", OTHER_HOST)
    delivery = deliveries.record(session, hook.id, "d", 2, "", [event, rest])
    with pytest.raises(ConflictError) as nothing:
        webhooks.add_alias(session, COMMAND_LINE, KEY, delivery.id, "attacker.example.com", "trivy")
    assert nothing.value.reason == "nothing_to_add"
    (ticket,) = webhooks.add_alias(session, COMMAND_LINE, KEY, delivery.id, OTHER_HOST, "trivy")
    (registry,) = stored.list_registries(session)
    assert registry.aliases == (OTHER_HOST,)
    assert scans.get(session, ticket.scan_id, None).request.target == f"{HOST}/shop/cart:1"
    taken = deliveries.get(session, delivery.id, None)
    assert (taken.refused, taken.scans, taken.outcome) == ((rest,), (ticket.scan_id,), "1 image, 1 event refused")
    with pytest.raises(NotFoundError):
        deliveries.get(session, "none", None)
    webhooks.remove(session, COMMAND_LINE, hook.id)
    assert deliveries.list_deliveries(session, None).items == ()
    assert scans.get(session, ticket.scan_id, None).id == ticket.scan_id, "the scans stay"


def test_a_host_that_is_an_alias_by_now_only_has_its_images_scanned(session: Connection) -> None:
    hook = create(session)
    event = deliveries.RefusedEvent(deliveries.UNKNOWN_REGISTRY, "unknown", OTHER_HOST, "shop/cart", "1", key="k")
    first, second = (deliveries.record(session, hook.id, key, 1, "", [event]) for key in ("d", "e"))
    for delivery in (first, second):
        webhooks.add_alias(session, COMMAND_LINE, KEY, delivery.id, OTHER_HOST, "trivy")
    (registry,) = stored.list_registries(session)
    assert registry.aliases == (OTHER_HOST,)
    assert deliveries.get(session, second.id, None).refused == ()
