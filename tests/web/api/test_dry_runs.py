"""A dry run over the API: started once, followed, read in pages, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from scanner.model.finding import Severity
from scanner.services import dry_runs
from scanner.store import jobs
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.api.test_administration import policy
from tests.web.conftest import Api, Worker


def finish(database: Database) -> None:
    with database.session() as session:
        job = jobs.claim(session, "test-worker", {jobs.DRY_RUN: None}, 600)
    assert job
    dry_runs.Examination(database, job).run()


@pytest.fixture
def bad(api: Api, worker: Worker) -> str:
    api("PUT", "/policies/all", {"text": policy(action="warn")})
    package = make.package(1)
    flaws = [make.vulnerability(1, package, severity=Severity.CRITICAL)]
    found = make.report("bad", packages=[package], vulnerabilities=flaws)
    for each in (found, make.report("clean", packages=[package])):
        api("POST", "/scans", {"image": f"{make.REPOSITORY}@{each.digest}"})
        worker.finish(each)
    return str(found.digest)


def test_started_followed_and_read(api: Api, bad: str, database: Database) -> None:
    started = api("POST", "/policies/all/dry-runs", {"text": policy()})
    assert started.status_code == 202
    assert started.json["state"] == "queued"
    assert started.json["images"]["matching"] is None
    assert api("POST", "/policies/all/dry-runs", {"text": policy()}).json["id"] == started.json["id"]
    finish(database)
    path = started.headers["Location"]
    done = api("GET", path).json
    assert done["state"] == "done"
    share = done["images"]
    assert (share["known"], share["matching"], share["examined"]) == (2, 2, 2)
    assert (share["newly_denied"], share["newly_released"], share["unchanged"]) == (1, 0, 1)
    assert done["groups"] == [{"rule": "no-criticals", "project": "default", "newly_denied": 1, "newly_released": 0}]
    (change,) = api("GET", f"{path}/changes?subject=image&change=denied&rule=no-criticals").json["items"]
    assert (change["digest"], change["before"], change["after"]) == (bad, "warn", "deny")
    assert api("GET", f"{path}/changes?change=released").json == {"items": [], "next_cursor": None}
    assert api("POST", f"{path}/cancel", {}).status_code == 409


def test_the_stored_document_a_past_day_and_what_is_refused(api: Api, bad: str, database: Database) -> None:
    day = (datetime.now(UTC) - timedelta(days=5)).date().isoformat()
    started = api("POST", "/policies/all/dry-runs", {"as_of": day})
    assert started.status_code == 202, started.text
    assert started.json["as_of"].startswith(day)
    finish(database)
    done = api("GET", started.headers["Location"]).json
    assert (done["images"]["later"], done["images"]["examined"], done["workloads"]) == (2, 0, None)
    for wrong in ({"as_of": "1999-01-01"}, {"as_of": "soon"}, {"text": "rules: ["}, {"text": policy(), "more": 1}):
        assert api("POST", "/policies/all/dry-runs", wrong).status_code == 422, wrong
    assert api("POST", "/policies/missing/dry-runs", {}).status_code == 404


def test_nobody_elses(api: Api, call: Callable[..., Api], bad: str, database: Database) -> None:
    path = api("POST", "/policies/all/dry-runs", {"text": policy()}).headers["Location"]
    finish(database)
    other = call("read", projects=["elsewhere"])
    for method, tail in (("GET", ""), ("GET", "/changes"), ("POST", "/cancel")):
        answer = other(method, path + tail, {} if method == "POST" else None)
        assert answer.status_code == 404
    own = other("POST", "/policies/all/dry-runs", {"text": policy()})
    assert own.status_code == 202
    finish(database)
    assert other("GET", own.headers["Location"]).json["images"]["known"] == 0
