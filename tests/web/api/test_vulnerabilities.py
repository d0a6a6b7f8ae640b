"""``GET /vulnerabilities/<id>``: an advisory and what it affects, also as an older version stored it."""

from __future__ import annotations

import pytest

from scanner.store.schema import vulnerability
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker

PACKAGE = make.package(1)
FLAW = make.vulnerability(1, PACKAGE, aliases=("GHSA-1",), known_exploited=True)
FOUND = make.report("app", packages=[PACKAGE], vulnerabilities=[FLAW])


@pytest.fixture(autouse=True)
def scanned(api: Api, worker: Worker) -> None:
    api("POST", "/scans", {"image": f"{make.REPOSITORY}@{FOUND.digest}"})
    worker.finish(FOUND)


def test_an_advisory_with_what_it_affects(api: Api) -> None:
    answer = api("GET", f"/vulnerabilities/{FLAW.id}").json
    assert (answer["aliases"], answer["known_exploited"], answer["truncated"]) == (["GHSA-1"], True, False)
    assert [each["digest"] for each in answer["affected"]] == [FOUND.digest]
    assert api("GET", "/vulnerabilities/CVE-1999-1").status_code == 404


def test_an_advisory_that_an_older_version_stored(api: Api, database: Database) -> None:
    """With fewer members. It was an internal error."""
    with database.session() as session:
        session.execute(vulnerability.update().values(document={}))
    answer = api("GET", f"/vulnerabilities/{FLAW.id}")
    assert answer.status_code == 200
    assert (answer.json["aliases"], answer.json["cvss"], answer.json["known_exploited"]) == ([], [], None)
