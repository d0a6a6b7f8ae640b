"""``POST /webhooks/<format>``: recorded once and answered, or refused with nothing done."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from scanner.config import Secret
from scanner.errors import RemoteError
from scanner.model.scan import ScanState
from scanner.store import deliveries, registries, scans
from scanner.store.schema import delivery
from scanner.store.session import Database
from tests.databases import BACKENDS, migrated_url
from tests.web.conftest import KEY, Api
from tests.web.test_capacity import Call, run
from tests.web.webhooks.test_distribution import DIGEST, envelope

EVENTS = "application/vnd.docker.distribution.events.v2+json"
HOSTILE = Path(__file__).parents[2] / "data/hostile/webhooks"
CASES = json.loads((HOSTILE / "expected.json").read_text())
HOST = "registry.example:5000"


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(request.param, tmp_path))
    yield database
    database.engine.dispose()


@pytest.fixture
def secret(database: Database) -> str:
    """A webhook of the configured registry, which pushes also reach as localhost:5000."""
    with database.session() as session:
        registry = registries.add(session, HOST, KEY, aliases=("localhost:5000",))
        return deliveries.create_hook(session, "lab", "distribution", registry.id, KEY)[1].reveal()


def send(app: OpenAPI, body: bytes | dict[str, Any], secret: str = "", **more: Any) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    path = more.pop("path", "/webhooks/distribution")
    return app.test_client().post(path, data=data, content_type=more.pop("media_type", EVENTS), headers=headers, **more)


def push(host: str = HOST, **target: Any) -> dict[str, Any]:
    document = envelope(**target)
    document["events"][0]["request"]["host"] = host
    return document


def queued(database: Database) -> list[str]:
    with database.read() as session:
        page = scans.list_scans(session, None, states=[ScanState.QUEUED])
    return sorted(scan.request.target for scan in page.items)


def test_a_push_is_recorded_and_answered(app: OpenAPI, database: Database, secret: str) -> None:
    answer = send(app, push(), secret)
    assert answer.status_code == 202
    assert queued(database) == [f"{HOST}/shop/cart:1.4.2@{DIGEST}"]
    with database.read() as session:
        scan = scans.get(session, answer.json["scans"][0])
        assert (scan.request.source, scan.request.lane, scan.request.project) == (
            "webhook:distribution",
            "push",
            "default",
        )
        (view,) = deliveries.list_deliveries(session, None).items
    assert (view.id, view.scans) == (answer.json["delivery"], tuple(answer.json["scans"]))


def test_the_registrys_other_name_leads_to_the_configured_one(app: OpenAPI, database: Database, secret: str) -> None:
    assert send(app, push("localhost:5000"), secret).status_code == 202
    assert queued(database)[0].startswith(HOST + "/")


@pytest.mark.parametrize("media_type", [EVENTS, EVENTS.replace("v2", "v1"), EVENTS + "; charset=utf-8"])
def test_both_versions(app: OpenAPI, secret: str, media_type: str) -> None:
    assert send(app, push(), secret, media_type=media_type).status_code == 202


def test_the_secret_in_the_path(app: OpenAPI, database: Database, secret: str) -> None:
    assert send(app, push(), path=f"/webhooks/distribution/{secret}").status_code == 202
    assert send(app, push(), path="/webhooks/distribution/wrong").status_code == 401


@pytest.mark.parametrize("told", ["wrong", "", "dwh_"])
def test_whoever_does_not_know_the_secret_changes_nothing(
    app: OpenAPI, database: Database, secret: str, told: str
) -> None:
    answer = send(app, push(), told)
    assert answer.status_code == 401
    assert secret not in answer.text
    assert queued(database) == []


def test_without_any_webhook_nobody_gets_in(app: OpenAPI, database: Database) -> None:
    assert send(app, push(), "anything").status_code == 401


def test_what_does_not_concern_us_leaves_no_trace(app: OpenAPI, database: Database, secret: str) -> None:
    pull = push()
    pull["events"][0]["action"] = "pull"
    for body in (pull, push(mediaType="application/octet-stream"), {"events": []}):
        answer = send(app, body, secret)
        assert (answer.status_code, answer.json["scans"]) == (202, [])
    assert queued(database) == []
    with database.read() as session:
        assert deliveries.list_deliveries(session, None).items == ()


def test_a_delivery_told_again_is_the_same(app: OpenAPI, database: Database, secret: str) -> None:
    """W1: twelve times, ten of them at once: one scan, twelve times 202, the same id."""
    first = [send(app, push(), secret) for _ in range(2)]
    with ThreadPoolExecutor(10) as pool:
        answers = first + list(pool.map(lambda _: send(app, push(), secret), range(10)))
    assert [a.status_code for a in answers] == [202] * 12
    assert len({a.json["scans"][0] for a in answers}) == 1
    assert len(queued(database)) == 1


def test_a_first_telling_in_parallel(app: OpenAPI, database: Database, secret: str) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: send(app, push(), secret), range(10)))
    assert [a.status_code for a in answers] == [202] * 10
    assert len({a.json["scans"][0] for a in answers}) == 1
    assert len(queued(database)) == 1


def test_the_same_event_in_another_envelope_is_the_same(app: OpenAPI, database: Database, secret: str) -> None:
    first = send(app, push(), secret).json
    second = send(app, {"events": push()["events"] * 2}, secret).json
    assert second["scans"] == first["scans"]
    assert second["delivery"] != first["delivery"]


def test_a_new_push_of_the_same_image_is_a_new_event(app: OpenAPI, database: Database, secret: str) -> None:
    send(app, push(), secret)
    later = push(digest="sha256:" + "2" * 64)
    later["events"][0]["id"] = "another"
    send(app, later, secret)
    assert len(queued(database)) == 2


def test_several_events_are_one_delivery(app: OpenAPI, database: Database, secret: str) -> None:
    events = []
    for number in range(3):
        event = push(repository=f"shop/part{number}")["events"][0]
        events.append({**event, "id": str(number)})
    answer = send(app, {"events": events}, secret).json
    assert len(answer["scans"]) == len(queued(database)) == 3


def refused(database: Database) -> list[deliveries.RefusedEvent]:
    with database.read() as session:
        return [event for view in deliveries.list_deliveries(session, None).items for event in view.refused]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (push(repository="../etc")["events"][0], "bad_reference"),
        (push("evil.example")["events"][0], "unknown_registry"),
        ("push", "invalid"),
        (push(tag="x" * 2000)["events"][0], "invalid"),
    ],
)
def test_a_bad_event_refuses_no_good_one(
    app: OpenAPI, database: Database, secret: str, bad: object, reason: str
) -> None:
    answer = send(app, {"events": [bad, push()["events"][0]]}, secret)
    assert (answer.status_code, len(answer.json["scans"]), answer.json["refused"]) == (202, 1, 1)
    assert queued(database) == [f"{HOST}/shop/cart:1.4.2@{DIGEST}"]
    assert [event.reason for event in refused(database)] == [reason]


@pytest.mark.parametrize(
    "events",
    [
        [7],
        ["push", None, []],
        push(repository=7)["events"],
        push(tag="x" * 2000)["events"],
        push(digest="a\nb")["events"],
        push("h" * 2000)["events"],
    ],
)
def test_a_delivery_of_unreadable_events_is_answered_and_shown(
    app: OpenAPI, database: Database, secret: str, events: list[object]
) -> None:
    """A registry repeats what it is told to be bad for ever, and no later push arrives."""
    answer = send(app, {"events": events}, secret)
    assert (answer.status_code, answer.json["scans"], answer.json["refused"]) == (202, [], len(events))
    assert {event.reason for event in refused(database)} == {"invalid"}
    assert all(event.message for event in refused(database))
    assert len(send(app, push(), secret).json["scans"]) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"events": 7}', b'{"event": []}', b"\xff\xfe"])
def test_a_body_that_is_no_envelope_is_refused(app: OpenAPI, database: Database, secret: str, body: bytes) -> None:
    answer = send(app, body, secret)
    assert (answer.status_code, answer.json["reason"]) == (422, "invalid")
    assert refused(database) == []


def test_two_events_with_one_id_are_two_pushes(app: OpenAPI, database: Database, secret: str) -> None:
    events = [push(tag=tag)["events"][0] for tag in ("1", "2", "2")]
    assert len(send(app, {"events": events}, secret).json["scans"]) == 2
    assert len(queued(database)) == 2


def test_more_than_a_thousand_pushes_are_all_taken(app: OpenAPI, database: Database, secret: str) -> None:
    (event,) = push()["events"]
    short = {"action": "push", "request": {"host": HOST}}
    events = [{**short, "id": str(n), "target": {**event["target"], "url": "", "tag": str(n)}} for n in range(1005)]
    answer = send(app, {"events": events}, secret)
    assert (answer.status_code, len(answer.json["scans"])) == (202, 1005)


@pytest.mark.parametrize("name", ["REGISTRY.Example:5000", "LocalHost:5000"])
def test_a_host_in_capitals_is_the_same(app: OpenAPI, database: Database, secret: str, name: str) -> None:
    assert len(send(app, push(name), secret).json["scans"]) == 1


@pytest.mark.parametrize(
    ("configured", "told", "taken"),
    [
        ("registry.example.com", "registry.example.com:443", True),
        ("registry.example.com:443", "Registry.Example.com", True),
        ("registry.example.com", "registry.example.com:8443", False),
        ("registry.example.com", "registry.example.com:443:443", False),
        ("registry.example.com:5000", "registry.example.com", False),
    ],
)
def test_the_usual_port_of_a_registry_may_be_named_or_not(
    app: OpenAPI, database: Database, configured: str, told: str, taken: bool
) -> None:
    with database.session() as session:
        registry = registries.add(session, configured, KEY)
        secret = deliveries.create_hook(session, "lab", "distribution", registry.id, KEY)[1].reveal()
    answer = send(app, push(told), secret)
    assert (answer.status_code, answer.json["refused"]) == (202, 0 if taken else 1)
    assert [target.partition("/")[0] for target in queued(database)] == ([configured] if taken else [])


@pytest.mark.parametrize("encoding", ["gzip", "deflate, gzip", "BR"])
def test_a_compressed_body_is_refused_by_its_header(
    app: OpenAPI, database: Database, secret: str, encoding: str
) -> None:
    body = gzip.compress(json.dumps(push()).encode())
    headers = {"Authorization": f"Bearer {secret}", "Content-Encoding": encoding}
    answer = app.test_client().post("/webhooks/distribution", data=body, content_type=EVENTS, headers=headers)
    assert answer.status_code == 415
    assert "without Content-Encoding" in answer.json["hint"]
    headers["Content-Encoding"] = "identity"
    plain = json.dumps(push())
    answer = app.test_client().post("/webhooks/distribution", data=plain, content_type=EVENTS, headers=headers)
    assert answer.status_code == 202


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_body_that_is_not_plain_utf_8_is_refused(
    app: OpenAPI, database: Database, secret: str, encoding: str
) -> None:
    assert send(app, json.dumps(push()).encode(encoding), secret).status_code == 422
    assert queued(database) == []


def test_a_long_id_is_taken(app: OpenAPI, database: Database, secret: str) -> None:
    document = push()
    document["events"][0]["id"] = "i" * 200
    assert len(send(app, document, secret).json["scans"]) == 1


def test_a_refused_host_is_added_as_an_alias_and_its_pushes_are_taken(
    app: OpenAPI, api: Api, database: Database, secret: str
) -> None:
    delivery_id = send(app, push("registry:5000"), secret).json["delivery"]
    (item,) = api("GET", "/events").json["items"]
    assert (item["refused"][0]["reason"], item["refused"][0]["host"]) == ("unknown_registry", "registry:5000")
    assert item["outcome"] == "0 images, 1 event refused"
    taken = api("POST", f"/events/{delivery_id}/alias", {"host": "registry:5000"})
    assert (taken.status_code, len(taken.json["scans"])) == (202, 1)
    assert queued(database) == [f"{HOST}/shop/cart:1.4.2@{DIGEST}"]
    assert api("GET", f"/events/{delivery_id}").json["refused"] == []
    assert send(app, push("registry:5000"), secret).json["scans"] == taken.json["scans"], "told again: the same push"
    again = api("POST", f"/events/{delivery_id}/alias", {"host": "registry:5000"})
    assert (again.status_code, again.json["reason"]) == (409, "nothing_to_add")


@pytest.mark.parametrize("host", ["user@evil", "http://registry:5000"])
def test_what_is_no_host_becomes_no_alias(app: OpenAPI, api: Api, database: Database, secret: str, host: str) -> None:
    delivery_id = send(app, push(host), secret).json["delivery"]
    assert api("POST", f"/events/{delivery_id}/alias", {"host": host}).status_code == 422
    assert queued(database) == []


def test_the_largest_event_of_a_registry_is_taken_and_no_larger_one(
    app: OpenAPI, database: Database, secret: str
) -> None:
    """The registry repeats a refused event forever: a push or pull that makes it write a long one must not stop it."""
    assert send(app, b" " * ((32 << 20) + 1), secret).status_code == 413
    announced = app.test_client().open(
        "/webhooks/distribution", method="POST", content_type=EVENTS, environ_overrides={"CONTENT_LENGTH": str(1 << 40)}
    )
    assert announced.status_code == 413
    hostile = push()
    hostile["events"][0]["request"]["useragent"] = "<" * (1 << 20)  # as long as Go reads a header
    reference = {"annotations": {"note": "<" * (4 << 20)}}  # as long as a manifest may be
    hostile["events"][0]["target"]["references"] = [reference]
    body = json.dumps(hostile).replace("<", "\\u003c").encode()  # as Go writes it
    assert len(body) > 30 << 20
    assert len(send(app, body, secret).json["scans"]) == 1


def test_another_media_type_or_format_or_method(app: OpenAPI, secret: str) -> None:
    assert send(app, push(), secret, media_type="application/json").status_code == 415
    assert send(app, push(), secret, path="/webhooks/nothing").status_code == 404
    assert app.test_client().get("/webhooks/distribution").status_code == 405


def test_a_disabled_webhook_and_another_header(app: OpenAPI, database: Database, secret: str) -> None:
    with database.session() as session:
        registry = registries.find(session, HOST)
        assert registry is not None
        other = deliveries.create_hook(session, "h", "distribution", registry.id, KEY, header="X-Registry-Token")[1]
    client = app.test_client()
    body = json.dumps(push())
    ask = {"data": body, "content_type": EVENTS}
    assert client.post("/webhooks/distribution", headers={"X-Registry-Token": other.reveal()}, **ask).status_code == 202
    assert client.post("/webhooks/distribution", headers={"Authorization": other.reveal()}, **ask).status_code == 401


def test_a_change_by_another_process_applies_at_once(app: OpenAPI, database: Database, secret: str) -> None:
    """What is kept in memory is compared with the database before anything is written."""

    def answers(secret: str, number: int, host: str = HOST) -> tuple[int, int]:
        body = push(host)
        body["events"][0]["id"] = str(number)
        pull = {"events": [{**body["events"][0], "action": "pull"}]}
        told = send(app, body, secret)
        assert told.status_code != 202 or not told.json["refused"] or host != HOST
        return told.status_code, send(app, pull, secret).status_code

    assert answers(secret, 1) == (202, 202)
    with database.session() as session:
        (hook,) = deliveries.list_hooks(session, None)
        second = deliveries.add_secret(session, hook.id, KEY).reveal()
    assert answers(second, 2) == answers(secret, 3) == (202, 202)
    with database.session() as session:
        deliveries.drop_secret(session, hook.id, KEY, keep_new=True)
    assert answers(secret, 4) == (401, 401)
    assert answers(second, 5) == (202, 202)
    assert send(app, push("mirror:5000"), second).json["refused"] == 1
    with database.session() as session:
        registries.update(session, hook.registry_id, KEY, aliases=["mirror:5000"])
    body = push("mirror:5000")
    body["events"][0]["id"] = "6"
    assert send(app, body, second).json["refused"] == 0
    with database.session() as session:
        deliveries.disable_hook(session, hook.id, True)
    assert answers(second, 7) == (401, 401)
    assert send(app, b"not JSON", second).status_code == 401


def test_a_flood_is_told_when_to_come_back(limited: OpenAPI, secret: str) -> None:
    answers = [send(limited, push(), "wrong").status_code for _ in range(62)]
    assert answers[:60] == [401] * 60
    last = send(limited, push(), "wrong")
    assert last.status_code == 429
    assert int(last.headers["Retry-After"]) >= 1
    assert send(limited, push(), secret).status_code == 202, "what the registry sends from the same address is taken"


def test_the_secret_is_encrypted_where_it_is_kept(database: Database, secret: str) -> None:
    with database.read() as session:
        rows = session.execute(sa.text("SELECT secret FROM webhook")).scalars().all()
        assert all(secret.encode() not in bytes(row) for row in rows)
        assert deliveries.hooks(session, "distribution", KEY)[0].secrets == (Secret(secret),)
        assert session.execute(sa.select(sa.func.count()).select_from(delivery)).scalar() == 0


# The hostile samples: written for Harbor's format, told here as Distribution would tell them


def as_distribution(payload: dict[str, Any]) -> dict[str, Any]:
    """The same lie in a Distribution envelope: the host that ``resource_url`` claims, the repository, the digest."""
    data = payload["event_data"]
    resource = data["resources"][0]
    url = resource["resource_url"].split("@sha256:")[0]
    repository = data["repository"]["repo_full_name"]
    host = url.removesuffix("/" + repository).removesuffix(f"/{repository}:1")
    return push(host, repository=repository, digest=resource["digest"], tag=resource.get("tag", ""))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_hostile_delivery(app: OpenAPI, database: Database, secret: str, case: dict[str, Any]) -> None:
    if case["id"] == "F06":
        body: bytes | dict[str, Any] = b"[" * 100_000 + b"]" * 100_000
    elif case["id"] == "F54":
        text = json.dumps(push(HOST, repository="p/r"))
        body = text.replace('"repository": "p/r"', '"repository": "p/r", "repository": "other/secret"').encode()
    else:
        body = as_distribution(json.loads((HOSTILE / case["file"]).read_text()))
    answer = send(app, body, secret if case["signature"] == "valid" else "")
    # An event that names another host, or no image, is refused and the delivery answered: a registry would repeat it
    # for ever.
    assert answer.status_code in (*case["http_any_of"], 202), answer.text
    assert case["signature"] == "valid" or answer.status_code == 401
    assert len(queued(database)) == case["jobs_created"]


@pytest.mark.parametrize(
    "target",
    [
        {"repository": "cart:evil"},
        {"repository": "cart@sha256:" + "a" * 64},
        {"repository": ""},
        {"repository": "/cart"},
        {"repository": "cart/"},
        {"repository": "a" * 300},
        {"repository": "cart\r\nX: y"},
        {"repository": "cart\x00"},
        {"repository": "cärt"},
        {"tag": "../1"},
        {"tag": "-v"},
        {"tag": "1@sha256:" + "a" * 64},
        {"tag": "x" * 129},
        {"digest": "sha256:../../etc/passwd"},
        {"digest": "md5:" + "a" * 32},
        {"digest": "sha256:" + "A" * 64},
        {"tag": "", "digest": ""},
    ],
)
def test_a_name_that_no_registry_has(app: OpenAPI, database: Database, secret: str, target: dict[str, str]) -> None:
    assert send(app, push(**target), secret).status_code == 202
    assert queued(database) == []
    assert len(refused(database)) == 1


@pytest.mark.parametrize(
    "host",
    [
        "registry.example",
        "registry.example:5001",
        "registry.example:5000.evil.example",
        "user@registry.example:5000",
        "127.0.0.1:5000",
        "localhost:5000/",
        "http://registry.example:5000",
    ],
)
def test_a_host_that_is_not_this_webhooks(app: OpenAPI, database: Database, secret: str, host: str) -> None:
    answer = send(app, push(host), secret)
    assert (answer.status_code, answer.json["scans"], answer.json["refused"]) == (202, [], 1)
    assert queued(database) == []
    assert [(event.reason, event.host) for event in refused(database)] == [("unknown_registry", host)]


def test_a_webhook_speaks_for_its_own_registry_only(app: OpenAPI, database: Database, secret: str) -> None:
    with database.session() as session:
        registries.add(session, "other.example", KEY, project="default")
    assert send(app, push("other.example"), secret).json["scans"] == []
    assert queued(database) == []


def test_the_deliveries_are_listed(app: OpenAPI, api: Api, secret: str) -> None:
    send(app, push(), secret)
    (item,) = api("GET", "/events").json["items"]
    assert (item["format"], item["registry"], item["events"]) == ("distribution", HOST, 1)


def test_the_web_server_answers_a_delivery_after_its_commit(
    app: OpenAPI, database: Database, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads hand deliveries over, and another one answers: as without a group, and with the same errors."""

    def deliver(document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        body = json.dumps(document).encode()
        headers = [("Content-Type", EVENTS), ("Authorization", f"Bearer {secret}"), ("Content-Length", str(len(body)))]
        call = run(app, Call(body), path="/webhooks/distribution", headers=headers)
        return call.status, json.loads(call.body)

    status, first = deliver(push())
    assert (status, first["events"], first["refused"]) == (202, 1, 0)
    with database.read() as session:
        (view,) = deliveries.list_deliveries(session, None).items
    assert (view.id, list(view.scans)) == (first["delivery"], first["scans"])
    assert deliver(push()) == (202, first)  # repeated
    status, other = deliver(push("other.example"))  # refused events are not written by a group
    assert (status, other["scans"], other["refused"]) == (202, [], 1)
    intake = app.extensions["dockwarden"].intake
    with monkeypatch.context() as patched:
        away = RemoteError("the database does not answer", reason="db_unavailable")
        patched.setattr(intake, "_write_group", Mock(side_effect=away))
        status, failed = deliver(push(tag="2"))
        assert (status, failed["reason"]) == (503, "db_unavailable")
    with database.session() as session:
        deliveries.disable_hook(session, view.webhook_id, True)
    status, refused = deliver(push(tag="3"))  # the group finds that what it was checked against is outdated
    assert (status, refused["reason"]) == (401, "bad_token")
    with database.read() as session:
        assert len(deliveries.list_deliveries(session, None).items) == 2
