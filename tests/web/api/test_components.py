"""``GET /components``: which images hold a package, and where they run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker

FOUND = make.report("app", packages=[make.package(3), make.package(14)])


@pytest.fixture(autouse=True)
def scanned(api: Api, worker: Worker) -> None:
    api("POST", "/scans", {"image": f"{make.REPOSITORY}@{FOUND.digest}"})
    worker.finish(FOUND)


def test_who_has_a_package(api: Api) -> None:
    answer = api("GET", "/components?name=LIB1&version=<1.20").json
    (row,) = answer["items"]
    assert (row["name"], row["version"], row["digest"]) == ("lib14", "1.14", FOUND.digest)
    assert (row["comparable"], row["environments"], answer["truncated"]) == (True, [], False)
    assert api("GET", "/components?name=lib1&version=>1.20").json["items"] == []


def test_where_it_runs(api: Api, call: Callable[..., Api]) -> None:
    workload = {"name": "web", "image": f"{make.REPOSITORY}@{FOUND.digest}", "source": "kubernetes"}
    report = {
        "environment": "production",
        "source": "kubernetes",
        "name": "c",
        "generation": 1,
        "workloads": [workload],
    }
    assert call("inventory")("POST", "/inventory", report).status_code == 200
    (row,) = api("GET", "/components?name=lib3&running=true").json["items"]
    assert row["environments"] == ["production"]


@pytest.mark.parametrize("query", ["name=a&version=~>1", "version=<", "version=1||2", "purl=%00"])
def test_a_wrong_question_is_named(api: Api, query: str) -> None:
    answer = api("GET", f"/components?{query}")
    assert answer.status_code in (400, 422)
    assert query.rpartition("&")[2].partition("=")[0] in answer.text


def test_every_package(api: Api) -> None:
    assert {row["name"] for row in api("GET", "/components").json["items"]} == {"lib3", "lib14"}
