"""Clair's notifier: told from its token before anything is parsed, taken down once, and its callback address never
read.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import OctKey
from werkzeug.test import TestResponse

from scanner import queue
from scanner.config import Secret, Settings
from scanner.store import jobs
from scanner.store.session import Database
from tests.databases import BACKENDS, migrated_url
from web import create_app

PSK = b"a key of thirty-two bytes, or so"
TOKEN = "a token of Clair's, long enough"
NOTIFICATION = "d9c8f3f0-4f0e-4d8a-8f53-0d6a3a1c5e11"
BODY = {"notification_id": NOTIFICATION, "callback": "http://169.254.169.254/latest/meta-data"}


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(request.param, tmp_path))
    yield database
    database.engine.dispose()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, clair_webhook_token=Secret(TOKEN), clair_psk=Secret(base64.b64encode(PSK).decode()))


@pytest.fixture
def client(settings: Settings, database: Database) -> FlaskClient:
    return create_app(settings, database, queue.make_app(settings)).test_client()


def send(client: FlaskClient, body: Any = BODY, token: str = TOKEN) -> TestResponse:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if isinstance(body, bytes):
        return client.post("/webhooks/clair", data=body, headers=headers, content_type="application/json")
    return client.post("/webhooks/clair", json=body, headers=headers)


def asked(database: Database) -> list[dict[str, Any]]:
    with database.read() as session:
        return [dict(job.parameters) for job in jobs.list_jobs(session, [jobs.CLAIR])]


def test_a_notification_becomes_one_job_however_often_it_is_told(client: FlaskClient, database: Database) -> None:
    first, again = send(client), send(client)
    assert (first.status_code, again.status_code) == (200, 200), "Clair takes nothing else for received"
    assert first.json == again.json
    assert asked(database) == [{"notification": NOTIFICATION}]


def signed(key: bytes = PSK, **more: Any) -> str:
    now = int(time.time())
    claims = {"iss": "clair-notifier", "iat": now, "nbf": now - 60, "exp": now + 60, **more}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key))


@pytest.mark.parametrize("form", ["Bearer {jwt}", "Bearer something of its configuration,Bearer {jwt}"])
def test_a_clair_that_has_our_key_signs_what_it_sends(client: FlaskClient, database: Database, form: str) -> None:
    headers = {"Authorization": form.format(jwt=signed())}
    assert client.post("/webhooks/clair", json=BODY, headers=headers).status_code == 200
    assert asked(database) == [{"notification": NOTIFICATION}]


@pytest.mark.parametrize(
    "token",
    [
        signed(b"another key of thirty-two bytes."),
        signed(iss="somebody"),
        signed(exp=int(time.time()) - 60),
        signed(nbf=int(time.time()) + 600),
        signed().rpartition(".")[0] + ".",
        "eyJhbGciOiJub25lIn0." + signed().split(".")[1] + ".",
    ],
    ids=["another key", "another issuer", "expired", "not yet", "no signature", "alg none"],
)
def test_a_signature_that_does_not_hold(client: FlaskClient, database: Database, token: str) -> None:
    assert send(client, token=token).status_code == 401
    assert asked(database) == []


@pytest.mark.parametrize("token", ["", "another token, long enough", TOKEN[:-1]])
def test_without_the_token_nothing_is_done(client: FlaskClient, database: Database, token: str) -> None:
    answer = send(client, b"not even JSON", token)
    assert (answer.status_code, answer.json["reason"]) == (401, "bad_token")
    assert asked(database) == []


@pytest.mark.parametrize("configured", ["", "short"])
def test_without_a_good_setting_nobody_has_the_token(settings: Settings, database: Database, configured: str) -> None:
    own = replace(settings, clair_webhook_token=Secret(configured))
    client = create_app(own, database, queue.make_app(own)).test_client()
    assert send(client, token=configured).status_code == 401
    assert asked(database) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"notification_id": 1}',
        {},
        {"notification_id": "../../index_state"},
        {"notification_id": "x" * 70_000},
    ],
)
def test_what_is_no_notification_is_refused(client: FlaskClient, database: Database, body: Any) -> None:
    assert 400 <= send(client, body).status_code < 500
    assert asked(database) == []
