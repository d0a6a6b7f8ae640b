"""The Docker engine's door on the server: an image and how it is run, judged for a host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from scanner import catalog
from scanner.config import Settings
from scanner.errors import RemoteError
from scanner.services import workload_documents
from scanner.store import admissions, audit, gate, policies
from scanner.store.session import Database
from tests.web.adapters.test_kubernetes import BAD, BAD_IMAGE, CLEAN, GOOD_IMAGE, NEW_IMAGE, POLICY
from tests.web.conftest import Api, Worker

Ask = Callable[..., TestResponse]


@pytest.fixture(autouse=True)
def known(database: Database, api: Api, worker: Worker) -> None:
    with database.session() as session:
        policies.put(session, "cluster", POLICY, "test")
    for found, image in ((CLEAN, GOOD_IMAGE), (BAD, BAD_IMAGE)):
        api("POST", "/scans", {"image": image})
        worker.finish(found)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, admission_wait_seconds=0.0, public_url="https://dockwarden.example.com")


@pytest.fixture
def ask(app: OpenAPI, make_token: Callable[..., str]) -> Ask:
    headers = {"Authorization": f"Bearer {make_token('admission')}"}

    def ask(*images: str, **more: Any) -> TestResponse:
        body = {"host": "build-1", "user": "ada", "operation": "container create", "name": "web", "images": images}
        answer: TestResponse = app.test_client().post("/adapters/docker/authorize", json=body | more, headers=headers)
        return answer

    return ask


def workload(**host: Any) -> dict[str, Any]:
    """As the plugin sends it."""
    limits = {"Memory": 64 << 20, **host}
    text = {"Name": "web", "Config": {"Image": "x", "Env": ["TOKEN=hunter2"]}, "HostConfig": limits}
    (found,) = catalog.workload_sources()["docker"].parse(str(text).replace("'", '"').replace("True", "true"), "web")
    return workload_documents.document(found)


def test_the_image_and_how_it_is_run_are_judged_together(ask: Ask) -> None:
    allowed = ask(GOOD_IMAGE, workload=workload()).json
    assert (allowed["allowed"], allowed["digest"], allowed["message"]) == (True, CLEAN.digest, "")
    privileged = ask(GOOD_IMAGE, workload=workload(Privileged=True)).json
    assert not privileged["allowed"]
    assert "privileged" in privileged["message"]
    denied = ask(BAD_IMAGE, workload=workload()).json
    assert not denied["allowed"]
    assert f"See https://dockwarden.example.com/images/{BAD.digest}" in denied["message"]
    assert not ask(BAD_IMAGE, operation="image pull", workload=None).json["allowed"]
    assert ask(GOOD_IMAGE, operation="image pull").json["allowed"]


def test_of_several_references_the_first_that_is_allowed_counts(ask: Ask) -> None:
    assert ask(NEW_IMAGE, GOOD_IMAGE).json["allowed"]
    assert not ask(NEW_IMAGE, BAD_IMAGE).json["allowed"]


def test_what_is_not_known_is_denied_and_scanned(ask: Ask, worker: Worker) -> None:
    answer = ask(NEW_IMAGE, workload=workload()).json
    assert (answer["allowed"], answer["pending"]) == (False, True)
    assert "being scanned" in answer["message"]
    assert worker.claim().request.source == "docker"


def test_a_question_that_cannot_be_read_is_an_error(ask: Ask) -> None:
    for more in (
        {"images": []},
        {"images": [7]},
        {"images": [GOOD_IMAGE] * 6},
        {"environment": "Not A Name"},
        {"host": 7},
        {"workload": []},
        {"workload": {"nothing": "such"}},
        {"more": 1},
    ):
        answer = ask(GOOD_IMAGE, **more)
        assert answer.status_code in (400, 422), more
        assert "allowed" not in answer.json
    assert not ask("NOT A REFERENCE").json["allowed"]


def test_a_database_that_is_away_is_an_error(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*asked: Any) -> None:
        raise RemoteError("the database does not answer", reason="db_unavailable")

    monkeypatch.setattr(gate, "current_decision", away)
    assert ask("registry.example.com/shop/cart@sha256:" + "8" * 64).status_code == 503


def test_calls_are_shown_and_denials_audited(ask: Ask, app: OpenAPI, database: Database) -> None:
    ask(GOOD_IMAGE, workload=workload())
    ask(BAD_IMAGE, workload=workload())
    app.extensions["doors_recorder"].flush()
    with database.read() as session:
        rows = admissions.list_reviews(session, door="docker").items
        (entry,) = audit.list_entries(session, audit.Filter(action="admission.deny")).items
    assert [(row.outcome, row.namespace, row.kind, row.user) for row in rows] == [
        ("denied", "build-1", "container", "ada"),
        ("allowed", "build-1", "container", "ada"),
    ]
    assert entry.detail["door"] == "docker"
