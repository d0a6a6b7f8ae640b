"""The page of base images: what to rebuild, what that changes, and why something is not known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.store import base_watch
from scanner.store.session import Database
from tests.web.api.test_bases import APP, BASE, asked
from tests.web.conftest import Api, Worker
from tests.web.pages.test_policies import Form


@pytest.fixture
def page(app: OpenAPI, make_token: Callable[..., str]) -> Callable[[], str]:
    form = Form(app.test_client(), make_token())
    return lambda: " ".join(form.client.get("/images/bases", headers=form.headers).text.split())


@pytest.fixture
def scanned(api: Api, worker: Worker) -> None:
    api("POST", "/scans", {"image": f"{APP.repository}:1"})
    worker.finish(APP)


def test_an_empty_page_says_what_to_do(page: Callable[[], str]) -> None:
    assert "No base images yet" in page()


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (base_watch.Comparison({"high": 23}, {"low": 1}), "On the new base, 23 findings go and 1 comes."),
        (base_watch.Comparison({"high": 1}, {}), "On the new base, 1 finding goes and 0 come."),
        (base_watch.Comparison(problem="base_not_scanned"), "not known: The newest base could not be scanned."),
        (base_watch.Comparison({}, {}, "base_incomplete"), "so more findings may come."),
        (None, "The newest base is being scanned"),
    ],
)
def test_what_to_rebuild(
    scanned: None, page: Callable[[], str], database: Database, comparison: base_watch.Comparison | None, words: str
) -> None:
    asked(database, comparison)
    text = page()
    assert "Rebuild 1 image." in text
    assert words in text
    assert f'href="/images/{APP.digest}"' in text


def test_a_registry_that_is_not_asked_says_why(scanned: None, page: Callable[[], str], database: Database) -> None:
    with database.session() as session:
        one = base_watch.get(session, BASE)
        assert one
        message = "registry.example.com is not a configured registry of project default"
        base_watch.failed(session, one, "registry_not_configured", message, 3600)
    text = page()
    assert f"The registry could not be asked: {message}." in text
    assert 'href="/registries"' in text
