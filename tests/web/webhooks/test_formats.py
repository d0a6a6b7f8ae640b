"""Every format × authentic, forged, replayed, reordered, hostile: one table, and the same questions to each."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask_openapi3.openapi import OpenAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import RSAKey
from werkzeug.datastructures import Headers
from werkzeug.test import TestResponse

from scanner import queue
from scanner.config import Settings
from scanner.errors import RemoteError
from scanner.model.scan import ScanState
from scanner.store import deliveries, registries, scans
from scanner.store.session import Database
from tests.databases import migrated_url
from tests.web.conftest import KEY
from tests.web.webhooks import senders
from tests.web.webhooks.senders import DIGEST, SENDERS, Sender, Signed, digest_of
from web import create_app
from web.sender_keys import SenderKeys
from web.webhooks import formats

HOST = "configured.example:5000"
EVERY = pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.id)


class Outside:
    """What Google and Amazon publish, and which addresses were asked for."""

    def __init__(self, ask: Callable[[str], bytes]) -> None:
        self.ask, self.asked = ask, list[str]()

    def __call__(self, address: str) -> bytes:
        self.asked.append(address)
        return self.ask(address)


@pytest.fixture(scope="module")
def outside() -> Outside:
    return Outside(senders.keys_of_senders())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="module")
def database(home: Path) -> Iterator[Database]:
    database = Database(migrated_url("sqlite", home))
    yield database
    database.engine.dispose()


@pytest.fixture(scope="module")
def app(home: Path, database: Database, outside: Outside) -> OpenAPI:
    """An app to which the tests' Google and Amazon are the real ones."""
    own = Settings(home=home / "home", secret_key=KEY, rate_limits=False)
    app = create_app(own, database, queue.make_app(own))
    app.extensions["dockwarden"] = replace(app.extensions["dockwarden"], sender_keys=SenderKeys(outside))
    return app


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    """A registry without webhooks, scans or deliveries."""
    clear(database)


def clear(database: Database) -> None:
    with database.session() as session:
        for table in (
            "delivery_scan",
            "delivery",
            "webhook",
            "idempotency",
            "outbox",
            "scan_attempt",
            "scan",
            "registry",
        ):
            session.execute(sa.text(f"DELETE FROM {table}"))


def hook(database: Database, sender: Sender) -> str:
    """A webhook of the configured registry, which calls itself otherwise in what it sends."""
    with database.session() as session:
        aliases = (sender.host,) if sender.host else ()
        known = registries.find(session, HOST)
        place = known or registries.add(session, HOST, KEY, aliases=aliases)
        made = deliveries.create_hook(session, "lab", sender.format, place.id, KEY, sender=sender.sender)
        return made[1].reveal()


def send(app: OpenAPI, sender: Sender, body: bytes, signed: Signed) -> TestResponse:
    path = f"/webhooks/{sender.format}{signed.path}"
    return app.test_client().post(path, data=body, content_type=sender.media_type, headers=dict(signed.headers))


def told(app: OpenAPI, sender: Sender, secret: str, number: int = 1, **more: Any) -> TestResponse:
    body = sender.body(number=number, **more)
    return send(app, sender, body, sender.sign(body, secret, number))


def queued(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(s.request.target for s in scans.list_scans(session, None, states=[ScanState.QUEUED]).items)


def begin(database: Database) -> None:
    """A worker has read the tags of everything that was queued."""
    with database.session() as session:
        session.execute(sa.text("UPDATE scan SET state = 'done', request_key = NULL WHERE state = 'queued'"))


def test_every_format_has_a_sender() -> None:
    """Or a test of its own beside this one."""
    senders = {sender.format for sender in SENDERS}
    own = {name for name in formats() if Path(__file__).with_name(f"test_{name.replace('-', '_')}.py").is_file()}
    assert (senders - set(formats()), set(formats()) - senders - own) == (set(), set())


# Authentic


@EVERY
def test_an_authentic_push_is_taken(app: OpenAPI, database: Database, sender: Sender) -> None:
    answer = told(app, sender, hook(database, sender))
    assert (answer.status_code, answer.json["refused"], len(answer.json["scans"])) == (202, 0, 1)
    digest = f"@{senders.DIGEST}" if sender.has_digest else ""
    assert queued(database) == [f"{HOST}/{sender.repository}:1.4.2{digest}"]
    with database.read() as session:
        (view,) = deliveries.list_deliveries(session, None).items
    assert (view.format, view.outcome) == (sender.format, "1 image")


@EVERY
def test_two_secrets_open_while_one_is_rotated(app: OpenAPI, database: Database, sender: Sender) -> None:
    old = hook(database, sender)
    with database.session() as session:
        (view,) = deliveries.list_hooks(session, None)
        new = deliveries.add_secret(session, view.id, KEY).reveal()
    assert [told(app, sender, secret, n).status_code for n, secret in enumerate((old, new), 1)] == [202, 202]
    with database.session() as session:
        deliveries.drop_secret(session, view.id, KEY, keep_new=True)
    assert [told(app, sender, secret, n).status_code for n, secret in enumerate((old, new), 3)] == [401, 202]


# Forged


@EVERY
@pytest.mark.parametrize("secret", ["wrong", "", "dwh_"])
def test_without_the_secret_nothing_is_done(app: OpenAPI, database: Database, sender: Sender, secret: str) -> None:
    hook(database, sender)
    body = sender.body()
    signed = Signed({}) if not secret else sender.sign(body, secret, 1)
    answer = send(app, sender, body, signed)
    assert (answer.status_code, answer.json["reason"]) == (401, "bad_token")
    assert queued(database) == []


@pytest.mark.parametrize(
    "sender",
    [s for s in SENDERS if "Signature" in str(s.sign(b"", "x", 1).headers) or s.id in ("jfrog", "ecr-sns")],
    ids=lambda sender: sender.id,
)
def test_a_body_that_was_changed_on_its_way_is_refused(app: OpenAPI, database: Database, sender: Sender) -> None:
    secret = hook(database, sender)
    body = sender.body()
    changed = body.replace(b"cart", b"evil")
    assert changed != body
    assert send(app, sender, changed, sender.sign(body, secret, 1)).status_code == 401
    assert queued(database) == []


@pytest.mark.parametrize("header", ["X-Hub-Signature-256", "X-Gitea-Signature", "X-Nexus-Webhook-Signature"])
@pytest.mark.parametrize("format_", ["ghcr", "gitea", "nexus"])
def test_the_bare_secret_is_no_signature(app: OpenAPI, database: Database, format_: str, header: str) -> None:
    sender = next(s for s in SENDERS if s.format == format_)
    secret = hook(database, sender)
    for signed in (Signed({header: secret}), Signed({"Authorization": f"Bearer {secret}"}), Signed({}, f"/{secret}")):
        assert send(app, sender, sender.body(), signed).status_code == 401


def test_a_sha1_signature_of_github_is_not_read(app: OpenAPI, database: Database) -> None:
    sender = next(s for s in SENDERS if s.format == "ghcr")
    body, secret = sender.body(), hook(database, sender)
    signed = senders.hmac_in("X-Hub-Signature", "sha1", "sha1=")(body, secret, 1)
    assert send(app, sender, body, signed).status_code == 401


GAR = next(s for s in SENDERS if s.format == "gar")
STRANGER = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}, private=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://dockwarden.example.com/webhooks/gar"},
        {"aud": None},
        {"aud": ["a list"]},
        {"email": "another@project.iam.gserviceaccount.com"},
        {"email": None},
        {"email_verified": False},
        {"email_verified": "true"},
        {"iss": "https://accounts.evil.example"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"iat": 1 << 40},
        {"iat": None},
        {"key": STRANGER},
    ],
    ids=str,
)
def test_a_token_that_is_not_pub_subs_is_refused(app: OpenAPI, database: Database, changes: dict[str, Any]) -> None:
    secret, body = hook(database, GAR), GAR.body()
    assert send(app, GAR, body, senders.google(body, secret, 1, **changes)).status_code == 401
    assert queued(database) == []


@pytest.mark.parametrize("token", ["", "a.b.c", "..", "e30.e30.", "é.é.é", "x" * 9000, "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token_is_refused(app: OpenAPI, database: Database, token: str) -> None:
    hook(database, GAR)
    signed = Signed({"Authorization": f"Bearer {token}".encode().decode("latin-1")})
    assert send(app, GAR, GAR.body(), signed).status_code == 401


def test_a_webhook_without_a_service_account_takes_nothing(app: OpenAPI, database: Database) -> None:
    assert told(app, GAR, hook(database, replace(GAR, sender=""))).status_code == 401


def test_googles_next_key_is_found(app: OpenAPI, database: Database) -> None:
    """A key that is not known is looked for again, and no stranger makes us look."""
    second = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"}, private=True)
    outside = Outside(senders.keys_of_senders(senders.GOOGLE))
    now = [1000.0]
    fetch = SenderKeys(outside, lambda: now[0])
    secret, body, form = hook(database, GAR), GAR.body(), formats()["gar"]

    def holds(key: RSAKey) -> bool:
        headers = Headers(senders.google(body, secret, 1, key=key).headers)
        return form.verify_sender(body, headers, senders.ACCOUNT, fetch)

    assert holds(senders.GOOGLE)
    assert holds(senders.GOOGLE)
    assert len(outside.asked) == 1
    assert not holds(second)
    assert len(outside.asked) == 1, "the keys are a moment old"
    now[0] += 61
    outside.ask = senders.keys_of_senders(second)
    assert holds(second)
    assert len(outside.asked) == 2


def test_where_the_keys_cannot_be_had_the_sender_tries_again(app: OpenAPI, database: Database) -> None:
    def down(address: str) -> bytes:
        raise RemoteError("no answer", reason="sender_unavailable")

    headers = Headers(senders.google(b"", "any secret", 1).headers)
    with pytest.raises(RemoteError):
        formats()["gar"].verify_sender(b"", headers, senders.ACCOUNT, SenderKeys(down))


SNS = next(s for s in SENDERS if s.id == "ecr-sns")
EVENT = senders.eventbridge("shop/cart", "1.4.2", senders.DIGEST, 1)
OTHER = "arn:aws:sns:eu-west-1:123456789012:other"


def as_sns(app: OpenAPI, secret: str, document: Any) -> TestResponse:
    return send(app, SNS, json.dumps(document).encode(), Signed({}, f"/{secret}"))


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_signatures_of_sns_are_read(app: OpenAPI, database: Database, version: str) -> None:
    assert as_sns(app, hook(database, SNS), senders.sns(EVENT, version=version, Subject="a push")).status_code == 202


@pytest.mark.parametrize(
    "document",
    [
        EVENT,
        senders.sns(EVENT, TopicArn=OTHER),
        {**senders.sns(EVENT), "Message": json.dumps({**EVENT, "id": "other"})},
        {**senders.sns(EVENT), "Signature": "AAAA"},
        {**senders.sns(EVENT), "Signature": 7},
        {**senders.sns(EVENT), "SignatureVersion": "3"},
        senders.sns(EVENT, key=senders.rsa.generate_private_key(65537, 2048)),
        [{"messageId": "1", "body": json.dumps(senders.sns(EVENT))}, {"messageId": "2", "body": json.dumps(EVENT)}],
        *(
            senders.sns(EVENT, SigningCertURL=address)
            for address in (
                "https://evil.example/SimpleNotificationService-0123abcd.pem",
                "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-0123abcd.pem",
                "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-0123abcd.pem",
                "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
                "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-0123abcd.pem",
                "https://sns.eu-west-1.amazonaws.com/../SimpleNotificationService-0123abcd.pem",
                "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
                "https://s3.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
                "https://169.254.169.254/SimpleNotificationService-0123abcd.pem",
                "",
                None,
            )
        ),
    ],
)
def test_what_the_topic_did_not_sign_is_refused(
    app: OpenAPI, database: Database, outside: Outside, document: Any
) -> None:
    assert as_sns(app, hook(database, SNS), document).status_code == 401
    assert queued(database) == []
    own = ("https://sns.eu-west-1.amazonaws.com/", "https://www.googleapis.com/")
    assert all(asked.startswith(own) for asked in outside.asked)


@pytest.mark.parametrize("bad", [7, None, {}, {"messageId": "1", "body": "{"}, {"messageId": "1", "body": "{}"}, []])
def test_an_unreadable_record_of_sqs_keeps_no_good_one_out(app: OpenAPI, database: Database, bad: Any) -> None:
    sender = next(s for s in SENDERS if s.id == "ecr-sqs")
    secret = hook(database, sender)
    body = json.dumps({"Records": [bad, {"messageId": "2", "body": json.dumps(EVENT)}]}).encode()
    answer = send(app, sender, body, sender.sign(body, secret, 1))
    assert (answer.status_code, len(answer.json["scans"]), answer.json["refused"]) == (202, 1, 1)


def test_without_a_topic_no_message_of_sns_is_taken(app: OpenAPI, database: Database) -> None:
    assert as_sns(app, hook(database, replace(SNS, sender="")), senders.sns(EVENT)).status_code == 401


def test_a_subscription_of_the_configured_topic_is_confirmed(
    app: OpenAPI, database: Database, outside: Outside
) -> None:
    secret = hook(database, SNS)
    outside.asked.clear()
    for refused in (senders.subscription(TopicArn=OTHER), {**senders.subscription(), "Token": "other"}):
        assert as_sns(app, secret, refused).status_code == 401
    assert not any("ConfirmSubscription" in asked for asked in outside.asked)
    assert as_sns(app, secret, senders.subscription()).status_code == 200
    confirmed = f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={senders.TOPIC}"
    assert (
        outside.asked[-1]
        == confirmed.replace(":sns:", "%3Asns%3A")
        .replace("arn:aws", "arn%3Aaws")
        .replace(":123456789012:", "%3A123456789012%3A")
        + "&Token=2336412f37"
    )
    assert not any("evil" in asked for asked in outside.asked)


ONE_OF_EACH = {sender.format: sender for sender in reversed(SENDERS)}


@pytest.mark.parametrize("sender", ONE_OF_EACH.values(), ids=lambda sender: sender.format)
def test_what_authenticates_at_one_webhook_opens_no_other(app: OpenAPI, database: Database, sender: Sender) -> None:
    """A delivery that was recorded, sent to another format's address; and the secret of one webhook, used at others."""
    secrets = {other.format: hook(database, other) for other in ONE_OF_EACH.values()}
    body = sender.body()
    signed = sender.sign(body, secrets[sender.format], 1)
    for other in ONE_OF_EACH.values():
        if other is not sender:
            assert send(app, replace(sender, format=other.format), body, signed).status_code == 401, other.format
            own = other.body()
            assert send(app, other, own, other.sign(own, secrets[sender.format], 1)).status_code == 401, other.format
    assert queued(database) == []


def changed(sender: Sender, *path: str | int, to: Any) -> bytes:
    """A real delivery in which one value is another."""
    document = json.loads(sender.body())
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    assert path[-1] in parent or isinstance(parent, list)
    parent[path[-1]] = to
    return json.dumps(document).encode()


def pubsub_action(action: str) -> bytes:
    event = {"action": action, "tag": "europe-docker.pkg.dev/p/r/cart:1.4.2"}
    return changed(GAR, "message", "data", to=base64.b64encode(json.dumps(event).encode()).decode())


def ecr_event(kind: str, **detail: str) -> bytes:
    named = {"repository-name": "shop/cart", "image-digest": DIGEST, "image-tag": "1.4.2"}
    event = json.loads(ONE_OF_EACH["ecr"].body()) | {"detail-type": kind, "detail": named | detail}
    return json.dumps(event).encode()


def nexus_asset(name: str) -> bytes:
    return json.dumps(
        {"repositoryName": "hosted", "action": "UPDATED", "asset": {"format": "docker", "name": name}}
    ).encode()


_ACTIONS = {
    "distribution": (("events", 0, "action"), ("delete", "pull", "mount", "Push", "push ", "")),
    "gitlab": (("events", 0, "action"), ("delete", "pull", "PUSH")),
    "acr": (("action",), ("delete", "chart_push", "Quarantine", "Push")),
    "harbor": (("type",), ("DELETE_ARTIFACT", "PULL_ARTIFACT", "PUSH_ARTIFACTS", "push_artifact", "harbor.push")),
    "harbor-cloudevents": (("type",), ("harbor.artifact.deleted", "harbor.artifact.pulled", "harbor.artifact.push")),
    "quay": (("updated_tags",), (None, [])),
    "ghcr": (("action",), ("deleted", "Published", "restored")),
    "ghcr-package": (("package", "package_type"), ("npm", "DOCKERFILE")),
    "gitea": (("action",), ("deleted", "Created")),
    "forgejo": (("package", "type"), ("generic", "helm", "")),
    "ecr": (("detail", "action-type"), ("DELETE", "push", "PULL")),
    "jfrog": (("event_type",), ("deleted", "Pushed")),
    "jfrog-plain": (("domain",), ("artifact", "build", "Docker")),
    "nexus": (("action",), ("DELETED", "PURGED", "created")),
}
OTHER_EVENTS = [
    *(
        (name, changed(next(s for s in SENDERS if s.id == name), *path, to=value), value)
        for name, (path, values) in _ACTIONS.items()
        for value in values
    ),
    *(("gar", pubsub_action(action), action) for action in ("DELETE", "insert", "")),
    ("ecr", changed(next(s for s in SENDERS if s.id == "ecr"), "detail", "result", to="FAILURE"), "FAILURE"),
    ("ecr", ecr_event("ECR Replication Action", **{"action-type": "REPLICATE", "result": "FAILED"}), "not replicated"),
    ("ecr", ecr_event("ECR Pull Through Cache Action", **{"sync-status": "FAILED"}), "not fetched"),
    ("ecr", ecr_event("ECR Image Scan", result="SUCCESS", **{"action-type": "PUSH"}), "scanned"),
    ("nexus", nexus_asset(f"v2/-/blobs/{DIGEST}"), "a blob"),
    ("nexus", nexus_asset("v2/shop/cart/tags/list"), "a list of tags"),
]


@pytest.mark.parametrize(
    ("name", "body"),
    [(name, body) for name, body, _ in OTHER_EVENTS],
    ids=[f"{n}-{value}" for n, _, value in OTHER_EVENTS],
)
def test_what_is_no_push_of_an_image_scans_nothing(app: OpenAPI, database: Database, name: str, body: bytes) -> None:
    """Deletions, pulls, packages of other kinds, and names that only look like a push. All are accepted: refused ones
    are repeated, and some senders disable the webhook.
    """
    sender = next(s for s in SENDERS if s.id == name)
    answer = send(app, sender, body, sender.sign(body, hook(database, sender), 1))
    assert (answer.status_code, answer.json["scans"], answer.json["refused"]) == (202, [], 0)
    assert queued(database) == []


OTHER_PUSHES = [
    (
        "jfrog",
        "promoted",
        changed(ONE_OF_EACH["jfrog"], "event_type", to="promoted"),
        f"docker-local/cart:1.4.2@{DIGEST}",
    ),
    ("acr", "quarantine", changed(ONE_OF_EACH["acr"], "action", to="quarantine"), f"shop/cart:1.4.2@{DIGEST}"),
    (
        "ecr",
        "replicated",
        ecr_event(
            "ECR Replication Action",
            result="SUCCESS",
            **{"action-type": "REPLICATE", "source-account": "210987654321", "source-region": "us-west-2"},
        ),
        f"shop/cart:1.4.2@{DIGEST}",
    ),
    (
        "ecr",
        "cached",
        ecr_event("ECR Pull Through Cache Action", **{"sync-status": "SUCCESS", "ecr-repository-prefix": "shop"}),
        f"shop/cart:1.4.2@{DIGEST}",
    ),
    ("nexus", "manifest", nexus_asset("v2/shop/cart/manifests/1.4.2"), "shop/cart:1.4.2"),
    ("nexus", "new-manifest", nexus_asset("/v2/shop/cart/manifests/1.4.2"), "shop/cart:1.4.2"),
    ("nexus", "manifest-by-digest", nexus_asset(f"/v2/shop/cart/manifests/{DIGEST}"), f"shop/cart@{DIGEST}"),
]


@pytest.mark.parametrize(
    ("name", "body", "image"),
    [(name, body, image) for name, _, body, image in OTHER_PUSHES],
    ids=[f"{name}-{case}" for name, case, _, _ in OTHER_PUSHES],
)
def test_whatever_puts_an_image_into_a_repository_is_a_push(
    app: OpenAPI, database: Database, name: str, body: bytes, image: str
) -> None:
    """A promotion, a replication, a fetched copy, a quarantined push, a manifest that replaces another one."""
    sender = next(s for s in SENDERS if s.id == name)
    answer = send(app, sender, body, sender.sign(body, hook(database, sender), 1))
    assert (answer.status_code, answer.json["refused"]) == (202, 0)
    (target,) = queued(database)
    assert target.endswith(f"/{image}")


_BAD: tuple[Any, ...] = (None, 7, "x", [], {}, [[]], {"action": 1}, {"tag": {}}, "a:b@c/..", "\u202e", 1 << 70)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("distribution", ("events",)),
        ("gitlab", ("events",)),
        ("harbor", ("event_data", "resources")),
        ("harbor-cloudevents", ("data", "resources")),
        ("quay", ("updated_tags",)),
        ("ecr-sqs", ("Records",)),
    ],
    ids=str,
)
def test_no_bad_event_keeps_a_good_one_out(app: OpenAPI, database: Database, name: str, path: tuple[str, ...]) -> None:
    sender = next(s for s in SENDERS if s.id == name)
    events = json.loads(sender.body())
    for step in path:
        events = events[step]
    for number in (0, 1, 2):  # before, between and after
        bad = list(_BAD)
        bad[number * 5 : number * 5] = events
        body = changed(sender, *path, to=bad)
        clear(database)
        answer = send(app, sender, body, sender.sign(body, hook(database, sender), 1))
        targets = [one for one in queued(database) if one.startswith(f"{HOST}/{sender.repository}:1.4.2")]
        assert (answer.status_code, len(targets)) == (202, 1)
        assert answer.json["refused"] >= len(_BAD) - 2


@EVERY
def test_what_surrounds_a_body_is_no_fault_of_ours(app: OpenAPI, database: Database, sender: Sender) -> None:
    secret, body, client = hook(database, sender), sender.body(), app.test_client()

    def status(data: bytes, content_type: str | None = sender.media_type, **more: str) -> int:
        signed = sender.sign(data, secret, 1)
        path, headers = f"/webhooks/{sender.format}{signed.path}", {**signed.headers, **more}
        return client.post(path, data=data, content_type=content_type, headers=headers).status_code

    assert status(body, f"{sender.media_type.upper()}; charset=utf-8") == 202
    assert status(body, None) == status(body, "application/x-www-form-urlencoded") == 415
    assert status(gzip.compress(body), **{"Content-Encoding": "gzip"}) in ((401, 415) if sender.sender else (415,))
    for spoiled_body in (
        b"\xef\xbb\xbf" + body,
        body.decode().encode("utf-16"),
        body + b"x",
        b"[" * 40 + body + b"]" * 40,
        *(
            (body[:-1] + extra + b"}" for extra in (b',"a":NaN', b',"a":1' + b"0" * 5000, b"," + body[1:-1]))
            if body.startswith(b"{")
            else ()
        ),
    ):
        assert status(spoiled_body) in ((401, 422) if sender.sender else (422,)), spoiled_body[:60]
    signed = sender.sign(body, secret, 1)
    for name in signed.headers:
        for value in ("", "\xc3\xa9", "x" * 9000, "\x7f", "sha1=0", f"Basic {secret}", f"{signed.headers[name]},x"):
            odd = Signed({**signed.headers, name: value}, signed.path)
            assert send(app, sender, body, odd).status_code in (202, 401), (name, value[:20])


# Tests of the senders'


@pytest.mark.parametrize(
    ("format_", "document"),
    [
        ("acr", {"id": "e9", "timestamp": "2026-09-01T10:00:00Z", "action": "ping"}),
        ("ghcr", {"zen": "Keep it logically awesome.", "hook_id": 1, "hook": {"type": "Organization"}, "sender": {}}),
        ("gitea", {"ref": "refs/heads/main", "commits": [], "repository": {"id": 1}, "sender": {"login": "ci"}}),
    ],
)
def test_a_test_of_the_senders_is_answered_and_seen(
    app: OpenAPI, database: Database, format_: str, document: Any
) -> None:
    sender = next(s for s in SENDERS if s.format == format_)
    body, secret = json.dumps(document).encode(), hook(database, sender)
    for _ in range(2):
        answer = send(app, sender, body, sender.sign(body, secret, 1))
        assert (answer.status_code, answer.json["scans"]) == (200, [])
    with database.read() as session:
        (view,) = deliveries.list_deliveries(session, None).items
        (seen,) = deliveries.list_hooks(session, None)
    assert view.outcome == "test delivery"
    assert seen.last_delivery == view.received_at


# Replayed


@EVERY
def test_a_delivery_told_again_does_not_scan_again(app: OpenAPI, database: Database, sender: Sender) -> None:
    secret = hook(database, sender)
    first, again = (told(app, sender, secret).json for _ in range(2))
    assert again["scans"] == first["scans"]
    if sender.identified:
        begin(database)
        assert told(app, sender, secret).json["scans"] == first["scans"]
        assert queued(database) == []


@EVERY
def test_a_second_push_of_a_tag_within_the_hour_is_a_push(app: OpenAPI, database: Database, sender: Sender) -> None:
    """Also back to what it named before: the registry knows what it names now."""
    secret, seen = hook(database, sender), set()
    for number, content in enumerate(("one", "two", "one"), 1):
        seen.update(told(app, sender, secret, number, digest=digest_of(content)).json["scans"])
        begin(database)
    assert len(seen) == 3


# Reordered


@EVERY
def test_pushes_in_another_order_lead_to_the_same_scans(app: OpenAPI, database: Database, sender: Sender) -> None:
    secret = hook(database, sender)
    for number in (2, 1, 3):
        told(app, sender, secret, number, tag=f"1.{number}", digest=digest_of(str(number)))
    targets = [f"{HOST}/{sender.repository}:1.{n}" for n in (1, 2, 3)]
    if sender.has_digest:
        targets = [f"{target}@{digest_of(str(n))}" for n, target in enumerate(targets, 1)]
    assert queued(database) == targets


# Hostile


@EVERY
@pytest.mark.parametrize(
    "repository",
    ["../etc", "cart:evil", "a b", "-o/tmp/x", "A/B", "x//y", "cart\n", "x" * 2000, "cärt", "<script>", "a/../../b"],
)
def test_a_hostile_name_is_refused_and_answered(
    app: OpenAPI, database: Database, sender: Sender, repository: str
) -> None:
    secret = hook(database, sender)
    hostile = replace(sender, repository=f"{sender.repository.partition('/')[0]}/{repository}")
    answer = told(app, hostile, secret)
    assert answer.status_code == 202
    if not (sender.format in ("ghcr", "gitea") and repository == "A/B"):  # GitHub's owners have capitals
        assert not any(repository in target.partition("/")[2] for target in queued(database))
    assert all(target.startswith(f"{HOST}/") for target in queued(database))


@EVERY
@pytest.mark.parametrize("tag", ["../1", "-v", "1@sha256:" + "a" * 64, "x" * 200, "a b", "1\r\nX: y", "\x00"])
def test_a_hostile_tag_is_refused_and_answered(app: OpenAPI, database: Database, sender: Sender, tag: str) -> None:
    answer = told(app, sender, hook(database, sender), tag=tag)
    assert (answer.status_code, answer.json["scans"], answer.json["refused"]) == (202, [], 1)


@pytest.mark.parametrize("sender", [s for s in SENDERS if s.has_digest], ids=lambda sender: sender.id)
@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:" + "A" * 64, "sha256:1", "md5:" + "a" * 32])
def test_a_hostile_digest_is_refused_and_answered(
    app: OpenAPI, database: Database, sender: Sender, digest: str
) -> None:
    answer = told(app, sender, hook(database, sender), digest=digest)
    assert answer.status_code == 202
    assert not any(digest in target for target in queued(database))


@pytest.mark.parametrize("sender", [s for s in SENDERS if s.host], ids=lambda sender: sender.id)
def test_another_host_than_the_configured_one_is_refused(app: OpenAPI, database: Database, sender: Sender) -> None:
    secret = hook(database, replace(sender, host=""))  # none of its other names is configured
    answer = told(app, sender, secret)
    assert (answer.status_code, answer.json["scans"], answer.json["refused"]) == (202, [], 1)
    with database.read() as session:
        (view,) = deliveries.list_deliveries(session, None).items
    assert view.unknown_hosts == (sender.host,)


@EVERY
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"{}", b'"push"', b"\xff\xfe", b"[" * 100_000, b'{"a": "\\ud800"}']
)
def test_a_body_that_is_not_the_format_is_refused(
    app: OpenAPI, database: Database, sender: Sender, body: bytes
) -> None:
    secret = hook(database, sender)
    answer = send(app, sender, body, sender.sign(body, secret, 1))
    # What a topic must have signed and is no message has no signature that holds.
    assert answer.status_code in ((401, 422) if sender.sender else (422,))
    assert queued(database) == []


_TREE = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def spoiled(draw: st.DrawFn, sender: Sender) -> bytes:
    """A real delivery in which one value, anywhere, is another."""
    document = json.loads(sender.body())
    here, path = document, []
    while isinstance(here, dict | list) and here and (not path or draw(st.integers(0, 3))):
        step = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        path.append(step)
        here = here[step]
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = draw(_TREE)
    return json.dumps(document).encode()


@pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.id)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_are_a_fault_of_ours(app: OpenAPI, database: Database, sender: Sender, data: st.DataObject) -> None:
    with database.read() as session:
        known = deliveries.list_hooks(session, None)
        secret = deliveries.hooks(session, sender.format, KEY)[0].secrets[0].reveal() if known else ""
    secret = secret or hook(database, sender)
    body = data.draw(st.binary(max_size=200) | spoiled(sender))
    answer = send(app, sender, body, sender.sign(body, secret, 1))
    assert answer.status_code in (200, 202, 401, 422)
    assert answer.status_code != 401 or sender.sender


HARBOR = next(s for s in SENDERS if s.id == "harbor")
HOSTILE = Path(__file__).parents[2] / "data/hostile/webhooks"
CASES = [c for c in json.loads((HOSTILE / "expected.json").read_text()) if (HOSTILE / c["file"]).exists()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_hostile_samples_of_harbor(app: OpenAPI, database: Database, case: dict[str, Any]) -> None:
    """As they were written: for a registry that is called ``registry.example:5000``."""
    secret = hook(database, replace(HARBOR, host="registry.example:5000"))
    body = (HOSTILE / case["file"]).read_bytes()
    answer = send(app, HARBOR, body, HARBOR.sign(body, secret if case["signature"] == "valid" else "wrong", 1))
    assert answer.status_code in (*case["http_any_of"], 202)
    assert len(queued(database)) == case["jobs_created"]
