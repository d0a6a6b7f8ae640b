"""The package page: who has a package."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.store.schema import component
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker
from tests.web.pages.test_policies import Form

FOUND = make.report("app", packages=[make.package(3), make.package(14)])


@pytest.fixture
def page(app: OpenAPI, make_token: Callable[..., str], api: Api, worker: Worker) -> Callable[[str], str]:
    api("POST", "/scans", {"image": f"{make.REPOSITORY}@{FOUND.digest}"})
    worker.finish(FOUND)
    form = Form(app.test_client(), make_token())
    return lambda query: form.client.get(f"/packages{query}", headers=form.headers).text


def test_the_images_of_a_package(page: Callable[[str], str]) -> None:
    text = page("?q=lib1&version=%3C1.20")
    assert "lib14" in text
    assert "not running" in text
    assert "lib3" not in text
    assert "lib14,1.14,pkg:deb/debian/lib14@1.14,true" in page("?q=lib1&format=csv")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?q=lib&version=~%3E1", "Not a version range"),
        ("?q=nothing", "No image has this package"),
        ("", "Search for a package"),
        ("?q=lib3&running=1", "No scanned and running image"),
    ],
)
def test_a_page_without_rows_says_why(page: Callable[[str], str], query: str, words: str) -> None:
    assert words in page(query)


def test_nothing_among_the_first_of_many_is_not_nothing(page: Callable[[str], str], database: Database) -> None:
    many = [{"purl": f"pkg:deb/x{n}", "name": "libx", "version": "1", "type": "deb"} for n in range(5001)]
    with database.session() as session:
        session.execute(component.insert(), many)
    text = page("?q=libx")
    assert "Too many packages match" in text
    assert "No image has this package" not in text
