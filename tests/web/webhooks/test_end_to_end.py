"""Each format from a push to a stored decision: a real server, and a docker-registry that stands for the named one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from scanner import queue
from scanner.config import Settings
from scanner.store.session import Database
from tests.servers import Dockwarden, Registry
from tests.web.webhooks import senders
from tests.web.webhooks.senders import SENDERS, Sender
from web import create_app
from web.sender_keys import SenderKeys

TAG = "1.4.1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sample_layouts: Path) -> Iterator[Registry]:
    """A docker-registry with the image that every sender tells of, in the repository that it calls so."""
    registry = Registry(tmp_path_factory.mktemp("named")).start()
    try:
        for repository in sorted({sender.repository for sender in SENDERS}):
            registry.push(f"oci:{sample_layouts / 'shop/vulnerable'}:{TAG}", f"{repository}:{TAG}")
        yield registry
    finally:
        registry.stop()


@pytest.fixture(scope="module")
def registry_id(server: Dockwarden, place: Registry) -> str:
    """The registry as it is configured: its own address, and what the senders call it."""
    aliases = sorted({sender.host for sender in SENDERS if sender.host})
    body = {"host": place.host, "insecure": True, "aliases": aliases}
    added = server.api("POST", "/api/v1/registries", json=body)
    assert added.status_code == 201, added.text
    return str(added.json()["id"])


def deliver(server: Dockwarden, sender: Sender, body: bytes, signed: senders.Signed) -> list[str]:
    """The scans that a delivery led to. Google's and Amazon's keys are in the hands of an app beside the server."""
    path, headers = f"/webhooks/{sender.format}{signed.path}", {"Content-Type": sender.media_type, **signed.headers}
    if not sender.sender:
        answer = httpx.post(server.url + path, content=body, headers=headers, trust_env=False, timeout=30)
        assert answer.status_code == 202, answer.text
        return list(answer.json()["scans"])
    own = Settings(home=server.home, rate_limits=False)
    database = Database.of(own)
    try:
        app = create_app(own, database, queue.make_app(own))
        keys = SenderKeys(senders.keys_of_senders())
        app.extensions["dockwarden"] = replace(app.extensions["dockwarden"], sender_keys=keys)
        beside = app.test_client().post(path, data=body, headers=headers)
        assert beside.status_code == 202, beside.text
        return list(beside.json["scans"])
    finally:
        database.engine.dispose()


def ended(server: Dockwarden, scan: str) -> dict[str, object]:
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        found = dict(server.api("GET", f"/api/v1/scans/{scan}").json())
        if found["state"] in ("done", "failed", "dead", "cancelled"):
            return found
        time.sleep(0.2)
    pytest.fail(f"the scan did not end: {found}")


@pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.id)
def test_a_push_becomes_a_decision(server: Dockwarden, place: Registry, registry_id: str, sender: Sender) -> None:
    given = {"registry": registry_id, "format": sender.format, "name": sender.id, "sender": sender.sender}
    made = server.api("POST", "/api/v1/webhooks", json=given)
    assert made.status_code == 201, made.text
    secret = made.json()["secret"]
    assert secret in made.json()["snippet"]
    name = f"http://{place.host}/v2/{sender.repository}/manifests/{TAG}"
    accepted = {"Accept": senders.MANIFEST}
    digest = httpx.head(name, headers=accepted, trust_env=False).headers["Docker-Content-Digest"]
    body = sender.body(TAG, digest)
    (scan,) = deliver(server, sender, body, sender.sign(body, secret, 1))
    found = ended(server, scan)
    assert (found["state"], found["digest"]) == ("done", digest), found
    image = f"{place.host}/{sender.repository}:{TAG}"
    decision = server.api("POST", "/api/v1/gate", json={"image": image, "wait_seconds": 60}).json()
    assert (decision["verdict"], decision["undecided"]) == ("deny", False)
    (seen,) = [h for h in server.api("GET", "/api/v1/webhooks").json()["items"] if h["id"] == made.json()["id"]]
    assert seen["last_delivery"] is not None
