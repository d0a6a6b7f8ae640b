"""Scans: asked for once, watched, stopped, asked for again."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.errors import ImageError, LeaseLost
from scanner.model.reference import Digest
from scanner.store import projects, scans
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker

IMAGE = f"{make.REPOSITORY}:1"
FOUND = make.report("image", packages=[make.package(1)])
PINNED = f"{make.REPOSITORY}@{FOUND.digest}"


def test_a_request_is_accepted_and_can_be_watched(api: Api, worker: Worker) -> None:
    answer = api("POST", "/scans", {"image": IMAGE})
    assert answer.status_code == 202
    location = answer.headers["Location"]
    assert location == f"/api/v1/scans/{answer.json['id']}"
    assert api("GET", location).json["state"] == "queued"
    claim = worker.claim()
    running = api("GET", location).json
    assert (running["state"], running["progress"]["stage"]) == ("running", "resolve")
    worker.finish(FOUND, claim)
    done = api("GET", location).json
    assert (done["state"], done["digest"], done["progress"]) == ("done", FOUND.digest, None)


def test_a_current_result_is_not_scanned_for_again(api: Api, worker: Worker) -> None:
    first = api("POST", "/scans", {"image": PINNED})
    worker.finish(FOUND)
    again = api("POST", "/scans", {"image": PINNED})
    assert (again.status_code, again.json["id"]) == (200, first.json["id"])
    assert api("POST", "/scans", {"image": PINNED, "force": True}).status_code == 202
    assert api("POST", "/scans", {"image": IMAGE}).status_code == 202


def test_the_same_request_fifty_times_is_one_scan(api: Api) -> None:
    ids = {api("POST", "/scans", {"image": IMAGE}).json["id"] for _ in range(50)}
    assert len(ids) == 1


def test_an_idempotency_key_is_one_scan_for_ever(api: Api, call: Callable[..., Api], worker: Worker) -> None:
    key = {"Idempotency-Key": "build-17"}
    first = api("POST", "/scans", {"image": IMAGE}, headers=key).json
    worker.finish(FOUND)
    assert api("POST", "/scans", {"image": IMAGE}, headers=key).json["id"] == first["id"]
    reused = api("POST", "/scans", {"image": "other/image:2"}, headers=key)
    assert (reused.status_code, reused.json["reason"]) == (409, "idempotency_key_reused")
    assert call()("POST", "/scans", {"image": IMAGE}, headers=key).json["id"] != first["id"]


@pytest.mark.parametrize("more", [{"platform": "linux/arm64"}, {"engine": "clair"}, {"force": True}])
def test_an_idempotency_key_is_of_the_whole_request(api: Api, worker: Worker, more: dict[str, object]) -> None:
    key = {"Idempotency-Key": "build-18"}
    assert api("POST", "/scans", {"image": IMAGE}, headers=key).status_code == 202
    reused = api("POST", "/scans", {"image": IMAGE, **more}, headers=key)
    assert (reused.status_code, reused.json["reason"]) == (409, "idempotency_key_reused")


def test_one_platform_is_no_current_result_of_an_index(api: Api, worker: Worker) -> None:
    index = replace(FOUND, subject=replace(FOUND.subject, digest=Digest.of(b"an index")))
    pinned = f"{make.REPOSITORY}@{index.digest}"
    assert api("POST", "/scans", {"image": pinned, "platform": "linux/amd64"}).status_code == 202
    worker.finish(index)
    for narrowed in ({}, {"platform": "linux/amd64"}, {"platform": "linux/arm64"}):
        assert api("POST", "/scans", {"image": pinned, **narrowed}).status_code == 202


def test_a_result_under_another_name_is_not_current(api: Api, worker: Worker) -> None:
    api("POST", "/scans", {"image": PINNED})
    worker.finish(FOUND)
    other = f"registry.example.com/other/name@{FOUND.digest}"
    assert api("POST", "/scans", {"image": other}).status_code == 202


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"image": "Not A Reference"}, 422),
        ({"image": IMAGE, "platform": "linux"}, 422),
        ({"image": IMAGE, "engine": "no-such-engine"}, 404),
        ({"image": IMAGE, "project": "no-such-project"}, 404),
        ({"image": IMAGE, "force": "maybe"}, 422),
        ({"image": IMAGE, "state": "done"}, 422),
        ({"image": IMAGE, "requested_by": "root"}, 422),
        ({}, 422),
    ],
)
def test_what_cannot_be_asked_for(api: Api, body: dict[str, object], status: int) -> None:
    assert api("POST", "/scans", body).status_code == status
    assert api("GET", "/scans").json["items"] == []


def test_dead_letters_are_a_filter_with_the_reason(api: Api, worker: Worker) -> None:
    api("POST", "/scans", {"image": IMAGE})
    worker.fail(ImageError("the archive ends in the middle", reason="malformed_archive"))
    (failed,) = api("GET", "/scans?state=failed&state=dead").json["items"]
    assert (failed["state"], failed["reason"]) == ("failed", "malformed_archive")
    assert failed["message"] == "the archive ends in the middle"
    assert api("GET", "/scans?state=queued").json["items"] == []


def test_a_long_list_is_read_page_by_page(api: Api) -> None:
    made = {api("POST", "/scans", {"image": f"shop/part:{n}"}).json["id"] for n in range(7)}
    seen: list[str] = []
    cursor = ""
    while True:
        page = api("GET", f"/scans?limit=3{cursor}").json
        seen += [scan["id"] for scan in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == 7
    assert set(seen) == made


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "state=finished", "nothing=1", "cursor=%00"])
def test_a_filter_that_there_is_not(api: Api, query: str) -> None:
    assert api("GET", f"/scans?{query}").status_code == 422


def test_a_cursor_that_is_not_ours(api: Api) -> None:
    assert api("GET", "/scans?cursor=AAAA").status_code == 404


def test_cancelling_takes_the_scan_from_its_worker(api: Api, worker: Worker, database: Database) -> None:
    scan = api("POST", "/scans", {"image": IMAGE}).json
    claim = worker.claim()
    assert api("POST", f"/scans/{scan['id']}/cancel").json["state"] == "cancelled"
    with database.session() as session, pytest.raises(LeaseLost):
        scans.heartbeat(session, claim, 60)
    again = api("POST", f"/scans/{scan['id']}/cancel")
    assert (again.status_code, again.json["reason"]) == (409, "already_ended")
    assert api("GET", "/audit-log").json["items"][0]["action"] == "scan.cancel"


def test_asking_again_is_a_new_scan_that_names_the_old(api: Api, worker: Worker) -> None:
    scan = api("POST", "/scans", {"image": IMAGE}).json
    assert api("POST", f"/scans/{scan['id']}/rescan").status_code == 409
    worker.fail(ImageError("bad"))
    again = api("POST", f"/scans/{scan['id']}/rescan")
    assert again.status_code == 202
    assert again.json["supersedes"] == scan["id"]
    assert api("GET", f"/scans/{scan['id']}").json["state"] == "failed"


def test_another_projects_scan_is_not_there(api: Api, call: Callable[..., Api], database: Database) -> None:
    with database.session() as session:
        projects.create(session, "secret")
    scan = api("POST", "/scans", {"image": IMAGE, "project": "secret"}).json["id"]
    other = call(projects=["default"])
    missing = "00000000-0000-4000-8000-000000000000"
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/rescan")):
        foreign, absent = other(method, f"/scans/{scan}{path}"), other(method, f"/scans/{missing}{path}")
        assert foreign.status_code == absent.status_code == 404
        strip = re.compile(r'"request_id":"\w+"')
        assert strip.sub("", foreign.text) == strip.sub("", absent.text)
    assert other("GET", "/scans").json["items"] == []
    assert other("GET", "/scans?project=secret").json["items"] == []
    assert other("POST", "/scans", {"image": IMAGE, "project": "secret"}).status_code == 404
    assert api("GET", f"/scans/{scan}").json["state"] == "queued"


def test_watching_ends_with_the_scan(api: Api, worker: Worker) -> None:
    scan = api("POST", "/scans", {"image": IMAGE}).json["id"]
    thread = threading.Timer(0.2, lambda: worker.finish(FOUND))
    thread.start()
    answer = api("GET", f"/scans/{scan}/events")
    text = answer.text
    thread.join()
    assert answer.mimetype == "text/event-stream"
    states = re.findall(r'"state":"(\w+)"', text)
    assert (states[0], states[-1]) == ("queued", "done")


def test_too_many_watchers_get_the_first_event_only(app: OpenAPI, api: Api) -> None:
    scan = api("POST", "/scans", {"image": IMAGE}).json["id"]
    waiters = app.extensions["dockwarden"].waiters
    taken = 0
    while waiters.acquire(blocking=False):
        taken += 1
    text = api("GET", f"/scans/{scan}/events").text
    for _ in range(taken):
        waiters.release()
    assert text.count("event: scan") == 1
