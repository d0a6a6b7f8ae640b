"""``dockwarden policy simulate``: everything is examined on the server; a part of it is never the whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import orjson
import pytest
from pytest_httpserver import HTTPServer
from werkzeug.wrappers import Response

from scanner.commands import _dry_runs
from scanner.commands._client import Client
from scanner.config import Secret
from scanner.errors import RemoteError

RUN = "11111111-1111-4111-8111-111111111111"
NOTHING = {"known": 0, "matching": 0, "examined": 0, "skipped": 0, "later": 0, "unscanned": 0, "unchanged": 0}


def run(state: str = "done", examined: int = 300, **more: Any) -> dict[str, Any]:
    images = {**NOTHING, "known": 1240, "matching": 300, "examined": examined, "unchanged": 299}
    groups = [{"rule": "no-criticals", "project": "shop", "newly_denied": 1, "newly_released": 0}]
    return {"id": RUN, "state": state, "images": images, "workloads": NOTHING, "groups": groups, "message": "", **more}


def change(name: str, **more: Any) -> dict[str, Any]:
    own = {"subject": "image", "change": "denied", "name": name, "digest": "sha256:1", "project": "shop"}
    return {
        **own,
        "environment": "",
        "before": "warn",
        "after": "deny",
        "rules": ["no-criticals"],
        "reasons": [],
        **more,
    }


@pytest.fixture
def client(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(_dry_runs, "_LOOK_SECONDS", 0.01)
    httpserver.expect_request("/api/v1/policies/ours/dry-runs", method="POST").respond_with_json(
        run("queued"), status=202
    )
    return Client(httpserver.url_for("").rstrip("/"), Secret("dw_x"))


def answers(httpserver: HTTPServer, runs: Sequence[dict[str, Any]], pages: Sequence[dict[str, Any]] = ()) -> None:
    for path, documents in ((f"/api/v1/dry-runs/{RUN}", runs), (f"/api/v1/dry-runs/{RUN}/changes", pages)):
        left = iter(documents)
        httpserver.expect_request(path, method="GET").respond_with_handler(
            lambda request, left=left: Response(orjson.dumps(next(left)))
        )


@pytest.mark.parametrize("items", [[], [{"name": "shop/web:1"}]])
def test_a_list_that_does_not_end_is_an_error(
    client: Client, httpserver: HTTPServer, items: list[dict[str, str]]
) -> None:
    httpserver.expect_request("/api/v1/components").respond_with_json({"items": items, "next_cursor": "same"})
    with pytest.raises(RemoteError, match="does not end"):
        list(client.pages("/api/v1/components", {"name": "xz"}, 1000))


def test_all_pages_of_changes_are_read(client: Client, httpserver: HTTPServer) -> None:
    service = change("web", subject="workload", digest=None, workload=RUN)
    pages = [
        {"items": [change("a\x1b[31m:1")], "next_cursor": "more"},
        {"items": [service, change("b:1", change="released")], "next_cursor": None},
    ]
    answers(httpserver, [run("running", 40), run("running", 40), run()], pages)
    told: list[str] = []
    found = _dry_runs.run_to_end(client, "ours", "text", None, 60, told.append)
    assert [len(found[name]) for name in ("newly_denied", "newly_released")] == [1, 1]
    assert [flip["workload"] for flip in found["workloads"]["newly_denied"]] == ["web"]
    assert (
        told[0]
        == "40 of 300 images examined, the policy does not apply to 940 others; 0 of 0 running workloads examined"
    )
    assert len(told) == 2, "the same progress is told once"
    shown = _dry_runs.describe(found).splitlines()
    assert shown[0].startswith("300 of 300 images examined")
    assert "\x1b" not in "".join(shown)
    assert any(line.split() == ["no-criticals", "shop", "1", "0"] for line in shown)


def test_a_wait_that_ends_is_no_answer(client: Client, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/api/v1/dry-runs/{RUN}").respond_with_json(run("running", 40))
    assert _dry_runs.run_to_end(client, "ours", "text", None, 0, print) == {"id": RUN, "complete": False}


@pytest.mark.parametrize("state", ["failed", "cancelled", "dead"])
def test_a_dry_run_that_failed_is_an_error(client: Client, httpserver: HTTPServer, state: str) -> None:
    answers(httpserver, [run(state, message="somebody\x1b stopped it")])
    with pytest.raises(RemoteError, match="somebody"):
        _dry_runs.run_to_end(client, "ours", "text", None, 60, print)


def test_without_a_worker_everything_is_asked_page_by_page(
    client: Client, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dry_runs, "_UNCLAIMED_SECONDS", -1.0)
    httpserver.expect_request(f"/api/v1/dry-runs/{RUN}/cancel").respond_with_json(run("cancelled"))
    page = {"newly_denied": [], "newly_released": [], "unchanged": 1, "examined": 1, "next_cursor": None}
    for path in ("simulate", "simulate/workloads"):
        httpserver.expect_request(f"/api/v1/policies/ours/{path}").respond_with_json(page)
    found = _dry_runs.run_to_end(client, "ours", "text", None, 60, lambda line: None)
    assert found["complete"]
    assert "0 images" in _dry_runs.describe(found)


def test_a_past_day_is_said(client: Client, httpserver: HTTPServer) -> None:
    answers(httpserver, [run(workloads=None, as_of="2026-10-03T23:59:59Z")], [{"items": [], "next_cursor": None}])
    found = _dry_runs.run_to_end(client, "ours", "text", date(2026, 10, 3), 60, lambda line: None)
    assert _dry_runs.describe(found).startswith("As of 2026-10-03")
