"""Which engine looks: the request's word, else the project's, else the server's, whichever way a scan is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner import queue
from scanner.config import Settings
from scanner.store import deliveries, projects, registries, scans
from scanner.store.session import Database
from tests.web.conftest import KEY, Api
from tests.web.webhooks.test_distribution import envelope
from web import create_app
from web.health import Check

HOST = "registry.example.com"


@pytest.fixture
def database(database: Database) -> Database:
    with database.session() as session:
        registries.add(session, HOST, KEY)
        projects.create(session, "shop", patterns=[f"{HOST}/shop/**"], engine="both")
    return database


def engines(database: Database) -> dict[str, str]:
    with database.read() as session:
        return {s.request.target.partition("@")[0]: s.request.engine for s in scans.list_scans(session, None).items}


def test_the_project_chooses_unless_the_request_does(api: Api, database: Database) -> None:
    api("POST", "/scans", {"image": f"{HOST}/shop/cart:1"})
    api("POST", "/scans", {"image": f"{HOST}/shop/cart:2", "engine": "clair"})
    api("POST", "/scans", {"image": f"{HOST}/other/app:3"})
    api("POST", "/gate", {"image": f"{HOST}/shop/cart:4"})
    assert engines(database) == {
        f"{HOST}/shop/cart:1": "both",
        f"{HOST}/shop/cart:2": "clair",
        f"{HOST}/other/app:3": "trivy",
        f"{HOST}/shop/cart:4": "both",
    }


def test_a_push_is_scanned_as_its_project_chooses(app: OpenAPI, database: Database) -> None:
    with database.session() as session:
        host = registries.find(session, HOST)
        assert host is not None
        secret = deliveries.create_hook(session, "lab", "distribution", host.id, KEY)[1].reveal()
    document = envelope(repository="shop/cart")
    document["events"][0]["request"]["host"] = HOST
    answer = app.test_client().post(
        "/webhooks/distribution",
        json=document,
        headers={"Authorization": f"Bearer {secret}"},
        content_type="application/vnd.docker.distribution.events.v2+json",
    )
    assert answer.status_code == 202
    assert set(engines(database).values()) == {"both"}


def test_the_choice_is_read_changed_and_checked(api: Api, database: Database) -> None:
    assert api("GET", "/projects/shop").json["engine"] == "both"
    assert api("PATCH", "/projects/shop", {"engine": "clair"}).json["engine"] == "clair"
    assert api("PATCH", "/projects/shop", {"description": "x"}).json["engine"] == "clair", "absent: as it was"
    assert api("POST", "/projects", {"name": "new"}).json["engine"] == ""
    refused = api("PATCH", "/projects/shop", {"engine": "triby"})
    assert refused.status_code == 422
    assert "trivy" in refused.text
    assert api("PATCH", "/projects/shop", {"engine": ""}).json["engine"] == ""
    api("POST", "/scans", {"image": f"{HOST}/shop/cart:9"})
    assert engines(database) == {f"{HOST}/shop/cart:9": "trivy"}


def test_an_engine_that_there_is_not_is_said(api: Api) -> None:
    answer = api("POST", "/scans", {"image": f"{HOST}/shop/cart:1", "engine": "none"})
    assert answer.status_code == 404
    assert "both" in answer.json["hint"]


@pytest.mark.parametrize(("choice", "ready"), [("both", "engine_missing"), ("nobody", "no_such_engine")])
def test_a_server_without_its_engines_is_not_ready(
    settings: Settings, database: Database, choice: str, ready: str
) -> None:
    own = replace(settings, engine=choice)
    answer = create_app(own, database, queue.make_app(own)).test_client().get("/readyz")
    found = answer.json["checks"]
    assert (found["engine"]["ok"], found["engine"]["reason"]) == (False, ready)


@pytest.mark.parametrize(
    ("check", "means"),
    [
        (Check("engine", False, True, "engine_missing"), "No image can be scanned. Install the engine"),
        (Check("engine", False, False, "engine_missing"), "only on workers that have it. Install the engine"),
        (Check("engine", False, True, "clair_unavailable"), "No image can be scanned. Start Clair"),
        (Check("advisories", False, False, "engine_db_unavailable"), "vulnerabilities count as unknown. Import one"),
        (Check("advisories", False, False, "no_such_engine"), "Vulnerabilities count as unknown. Choose an installed"),
        (Check("broker", False, False, "broker_unreachable"), "Start the broker"),
        (
            Check("database", False, True, "db_not_at_head", "run `dockwarden db upgrade`"),
            "run `dockwarden db upgrade`",
        ),
    ],
)
def test_a_failed_check_says_what_it_means_and_what_to_do(check: Check, means: str) -> None:
    assert means in check.explanation
