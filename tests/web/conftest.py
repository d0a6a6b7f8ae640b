"""The real app on a real database, without a network: a client for each kind of caller, and a worker's hand to end
scans with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from scanner import catalog, queue
from scanner.config import Secret, Settings
from scanner.errors import ScannerError
from scanner.model.access import SCOPES
from scanner.model.scan import ScanReport
from scanner.policy.evaluate import evidence_digest
from scanner.services import decisions
from scanner.store import accounts, images, registries, scans
from scanner.store.session import Database
from tests.databases import migrated_url
from web import create_app
from web.throttle import Throttle

KEY = Secret("a secret key for tests, long enough")


@dataclass(frozen=True)
class Api:
    """A caller with a token, or with none."""

    client: FlaskClient
    token: str = ""

    def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> TestResponse:
        headers = dict(more.pop("headers", {}))
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        path = path if path.startswith(("/api", "/webhooks", "/healthz")) else f"/api/v1{path}"
        if json is not None:
            more["json"] = json
        return self.client.open(path, method=method, headers=headers, **more)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url("sqlite", tmp_path))
    yield database
    database.engine.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", secret_key=KEY, rate_limits=False)


@pytest.fixture
def app(settings: Settings, database: Database) -> OpenAPI:
    return create_app(settings, database, queue.make_app(settings))


def limited_app(settings: Settings, database: Database) -> OpenAPI:
    """The app with its rate limits. No time passes for its throttle: what a slow test took would come back."""
    limits = replace(settings, rate_limits=True)
    app = create_app(limits, database, queue.make_app(limits))
    app.extensions["dockwarden"] = replace(app.extensions["dockwarden"], throttle=Throttle(lambda: 0.0))
    return app


@pytest.fixture
def limited(settings: Settings, database: Database) -> OpenAPI:
    return limited_app(settings, database)


@pytest.fixture
def make_token(database: Database) -> Callable[..., str]:
    """The text of a new token."""

    def make(*scopes: str, **more: Any) -> str:
        with database.session() as session:
            return accounts.create_token(session, "test", scopes or SCOPES, KEY, **more)[1].reveal()

    return make


@pytest.fixture
def call(app: OpenAPI, make_token: Callable[..., str]) -> Callable[..., Api]:
    """A caller whose token has these scopes (all, when none are named)."""
    return lambda *scopes, **more: Api(app.test_client(), make_token(*scopes, **more))


@pytest.fixture
def api(call: Callable[..., Api]) -> Api:
    """A caller who may do everything."""
    return call()


@pytest.fixture
def anonymous(app: OpenAPI) -> Api:
    return Api(app.test_client())


@pytest.fixture
def worker(database: Database) -> Worker:
    return Worker(database)


@dataclass(frozen=True)
class Worker:
    """What a worker does to a scan, without reading an image: claim it, and record evidence or a failure under the
    fence.
    """

    database: Database

    def claim(self) -> scans.Claim:
        with self.database.session() as session:
            claim = scans.claim(session, "test-worker", ("gate", "push", "background"), 60)
        assert claim is not None, "there was nothing to scan"
        return claim

    def finish(self, found: ScanReport, claim: scans.Claim | None = None) -> scans.Claim:
        claim = claim or self.claim()
        name, _, tag = claim.request.target.partition("@")[0].rpartition(":")
        named = (name, tag) if name and "/" not in tag else (claim.request.target.partition("@")[0], "")
        found = replace(found, reference=claim.request.target, repository=named[0], tag=named[1])
        with self.database.session() as session:
            scans.settle(session, claim, found.digest, found.images[0].engines[0].advisories.id)
            made = decisions.decide_all(session, found, catalog.known_names(), catalog.remedies())
            images.record(session, claim, found, evidence_digest(found), made)
        return claim

    def fail(self, error: ScannerError, claim: scans.Claim | None = None) -> scans.Claim:
        claim = claim or self.claim()
        with self.database.session() as session:
            scans.fail(session, claim, error.reason, str(error))
        return claim


@pytest.fixture
def registry(database: Database) -> registries.RegistryView:
    with database.session() as session:
        return registries.add(session, "registry.example.com", KEY, aliases=("localhost:5000",))
