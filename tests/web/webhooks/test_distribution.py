"""The distribution format: bytes in, events out; who sent them, in constant time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from scanner.config import Secret
from scanner.errors import UsageError
from web.webhooks.base import MAX_EVENTS, PushEvent, UnreadableEvent
from web.webhooks.distribution import Distribution

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DIGEST = "sha256:" + "1" * 64
FORMAT = Distribution()
SECRET = Secret("s3cret-value")


def envelope(**changes: Any) -> dict[str, Any]:
    """As in the registry's own documentation; ``changes`` replace members of the target."""
    target = {
        "mediaType": MANIFEST,
        "size": 1201,
        "digest": DIGEST,
        "length": 1201,
        "repository": "shop/cart",
        "tag": "1.4.2",
    }
    target["url"] = f"https://evil.example/v2/shop/cart/manifests/{DIGEST}"
    target.update(changes)
    event = {
        "id": "6f1e0c52-0000-4000-8000-000000000001",
        "timestamp": "2026-09-01T10:00:00.123456Z",
        "action": "push",
        "target": target,
        "request": {
            "id": "r1",
            "addr": "10.0.0.8:5021",
            "host": "reg.example.test",
            "method": "PUT",
            "useragent": "buildkit/v0.15",
        },
        "actor": {"name": "ci-bot"},
        "source": {"addr": "reg-0:5000", "instanceID": "a1b2"},
    }
    return {"events": [event]}


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_a_push_of_a_manifest() -> None:
    event = PushEvent(
        "reg.example.test", "shop/cart", "1.4.2", DIGEST, MANIFEST, "push", "6f1e0c52-0000-4000-8000-000000000001"
    )
    assert FORMAT.parse(body(envelope())) == [event]
    assert event.concerns_us


def test_the_url_of_the_payload_is_never_read() -> None:
    assert "evil" not in repr(FORMAT.parse(body(envelope())))


@pytest.mark.parametrize(
    "media_type",
    [
        "application/octet-stream",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ],
)
def test_blobs_do_not_concern_us(media_type: str) -> None:
    assert not FORMAT.parse(body(envelope(mediaType=media_type)))[0].concerns_us


@pytest.mark.parametrize("action", ["pull", "mount", "delete", "PUSH", ""])
def test_other_actions_do_not_concern_us(action: str) -> None:
    document = envelope()
    document["events"][0]["action"] = action
    assert not FORMAT.parse(body(document))[0].concerns_us


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"events": {}},
        {"events": "push"},
        "events",
        None,
    ],
)
def test_what_is_not_an_envelope_is_refused(document: Any) -> None:
    with pytest.raises(UsageError):
        FORMAT.parse(body(document))


@pytest.mark.parametrize(
    "document",
    [
        {"events": ["push"]},
        {"events": [{"action": "push", "target": "shop/cart"}]},
        {"events": [{"action": ["push"]}]},
        envelope(repository=7),
        envelope(repository="a\nb"),
        envelope(tag="x" * 2000),
    ],
)
def test_an_envelope_whose_only_event_cannot_be_read_is_one(document: Any) -> None:
    (event,) = FORMAT.parse(body(document))
    assert isinstance(event, UnreadableEvent)


@pytest.mark.parametrize(
    "bad", ["push", {"action": "push", "target": "shop/cart"}, {"action": ["push"]}, {"target": {"tag": "x" * 2000}}]
)
def test_a_malformed_event_keeps_no_good_one_from_being_read(bad: Any) -> None:
    (good,) = envelope()["events"]
    first, broken, last = FORMAT.parse(body({"events": [good, bad, good]}))
    assert first == last == FORMAT.parse(body(envelope()))[0]
    assert isinstance(broken, UnreadableEvent)


@pytest.mark.parametrize("count", [1001, 3000])
def test_more_than_a_thousand_events_are_read(count: int) -> None:
    assert len(FORMAT.parse(body({"events": [{}] * count}))) == count


def test_events_beyond_what_is_looked_at_are_told() -> None:
    *_, last = FORMAT.parse(body({"events": [{}] * (MAX_EVENTS + 5)}))
    assert last == UnreadableEvent(f"5 events beyond the first {MAX_EVENTS}")


def test_a_long_id_refuses_nothing() -> None:
    (event,) = envelope()["events"]
    (found,) = FORMAT.parse(body({"events": [{**event, "id": "i" * 200}]}))
    assert isinstance(found, PushEvent)
    assert len(found.identity) == 64


def test_one_id_for_two_images_is_two_pushes() -> None:
    one, two = PushEvent("h", "r", "1", DIGEST, id="same"), PushEvent("h", "r", "2", DIGEST, id="same")
    assert one.identity != two.identity
    assert one.identity == PushEvent("another-name", "r", "1", DIGEST, id="same").identity


def test_an_event_without_members_is_one_that_does_not_concern_us() -> None:
    assert not FORMAT.parse(body({"events": [{}]}))[0].concerns_us


@pytest.mark.parametrize(
    ("headers", "path", "accepted"),
    [
        ({"Authorization": "Bearer s3cret-value"}, "", True),
        ({"Authorization": "bearer  s3cret-value"}, "", True),
        ({"Authorization": "s3cret-value"}, "", True),
        ({}, "s3cret-value", True),
        ({"Authorization": "Bearer wrong"}, "", False),
        ({"Authorization": "Bearer s3cret-valu"}, "", False),
        ({"Authorization": "Bearer wörng"}, "", False),
        ({"X-Other": "s3cret-value"}, "", False),
        ({}, "", False),
    ],
)
def test_who_knows_the_secret(headers: dict[str, str], path: str, accepted: bool) -> None:
    assert FORMAT.authenticate(b"", Headers(headers), path, SECRET, "Authorization") is accepted


def test_a_header_of_ones_own() -> None:
    assert FORMAT.authenticate(b"", Headers({"x-registry-token": "s3cret-value"}), "", SECRET, "X-Registry-Token")
    assert not FORMAT.authenticate(b"", Headers({"Authorization": "s3cret-value"}), "", SECRET, "X-Registry-Token")


def test_an_empty_secret_lets_nobody_in() -> None:
    assert not FORMAT.authenticate(b"", Headers({"Authorization": ""}), "", Secret(""), "Authorization")


def test_two_reports_of_one_push_share_an_identity() -> None:
    (event,) = FORMAT.parse(body(envelope()))
    assert event.id == "6f1e0c52-0000-4000-8000-000000000001"
    one, two = PushEvent("h", "r", "t", DIGEST), PushEvent("other name", "r", "t", DIGEST, MANIFEST)
    assert one.identity == two.identity != PushEvent("h", "r", "u", DIGEST).identity
