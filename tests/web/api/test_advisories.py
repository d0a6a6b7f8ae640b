"""Advisories over the API: what is shown, what may be asked for, and by whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scanner.advisories import sources, trivydb
from scanner.config import Settings
from scanner.demo import samples
from tests.reports_factory import simple, vulnerability
from tests.web.conftest import Api, Worker


def test_how_old_they_are_and_where_they_came_from(api: Api, settings: Settings, tmp_path: Path) -> None:
    first = {s["source"]: s for s in api("GET", "/advisories").json["sources"]}
    assert first.keys() == {"trivy-db", "kev", "epss"}
    assert first["trivy-db"]["digest"] is None
    sources.import_file(settings, trivydb.build(samples.ADVISORIES, tmp_path / "db"))
    sources.note(
        settings,
        replace(sources.recorded_sources(settings)["kev"], failures=2, failure="mirror_unreachable: x", failed=1.0),
    )
    found = {s["source"]: s for s in api("GET", "/advisories").json["sources"]}
    assert found["trivy-db"]["origin"] == "file db"
    assert found["trivy-db"]["stale"] is False
    assert found["kev"]["failure"] == "mirror_unreachable: x"
    metrics = api.client.get("/metrics").text
    assert 'dockwarden_advisories_age_seconds{source="trivy-db"}' in metrics
    assert 'dockwarden_advisories_update_failures{source="kev"} 2.0' in metrics


def test_an_update_and_a_rematch_are_jobs(api: Api) -> None:
    asked = api("POST", "/advisories/update", {"sources": ["kev"]})
    assert asked.status_code == 202
    assert (asked.json["kind"], asked.json["state"]) == ("advisories-update", "queued")
    again = api("POST", "/advisories/update", {})
    assert again.json["id"] == asked.json["id"], "one at a time"
    rematch = api("POST", "/advisories/rematch", {})
    assert rematch.status_code == 202
    path = rematch.headers["Location"].partition("/api/v1")[2]
    assert api("GET", path).json["kind"] == "rematch"
    assert api("POST", f"{path}/cancel").json["state"] == "cancelled"
    assert api("POST", f"{path}/cancel").status_code == 409
    assert len(api("GET", "/advisories").json["jobs"]) == 2
    assert [e["action"] for e in api("GET", "/audit-log").json["items"]].count("job.cancel") == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/advisories/update", {"sources": ["nvd"]}, 422),
        ("/advisories/rematch", {"engine": "nessus"}, 404),
        ("/advisories/revocations", {}, 422),
        ("/advisories/revocations", {"engine": "trivy"}, 422),
        ("/advisories/revocations", {"engine": "trivy", "version": "1", "digest": "sha256:" + "0" * 64}, 422),
        ("/advisories/revocations", {"digest": "latest"}, 422),
        ("/advisories/jobs/00000000-0000-4000-8000-000000000000/cancel", None, 404),
        ("/advisories/revocations/00000000-0000-4000-8000-000000000000/lift", None, 404),
    ],
)
def test_what_cannot_be_asked_for(api: Api, path: str, body: object, status: int) -> None:
    assert api("POST", path, body).status_code == status


def test_who_may(call: Callable[..., Api]) -> None:
    assert call("read")("GET", "/advisories").status_code == 200
    for path in ("/advisories/update", "/advisories/rematch", "/advisories/revocations"):
        assert call("read", "scan", "policy")("POST", path, {}).status_code == 403
        assert call("manage", projects=("shop",))("POST", path, {"digest": "sha256:" + "0" * 64}).status_code in (
            403,
            422,
        )


def test_a_revocation_is_honoured_at_once(api: Api, worker: Worker) -> None:
    name = "registry.example.com/shop/cart"
    digest = str(simple().digest)
    assert api("POST", "/scans", {"image": f"{name}:1"}).status_code == 202
    worker.finish(simple(vulnerability(severity="low", fixed=None)))
    gate = {"image": f"{name}@{digest}"}
    assert api("POST", "/gate", gate).json["verdict"] in ("allow", "warn")
    made = api(
        "POST", "/advisories/revocations", {"engine": "trivy", "version": "0.76.0", "reason": "it misses things"}
    )
    assert made.status_code == 201
    answer = api("POST", "/gate", gate).json
    assert (answer["verdict"], answer["undecided"]) == ("deny", True)
    assert answer["reasons"][0]["slug"] == "engine_revoked"
    path = made.headers["Location"].partition("/api/v1")[2]
    found = api("GET", path).json
    assert [(i["repository"], i["version"]) for i in found["items"]] == [(name, "0.76.0")]
    assert not found["truncated"]
    assert api("GET", "/advisories").json["jobs"][0]["kind"] == "requeue"
    assert api("POST", f"{path}/lift").json["lifted_at"] is not None
    assert api("POST", "/gate", gate).json["verdict"] in ("allow", "warn")
    assert [item["lifted_at"] is None for item in api("GET", "/advisories/revocations").json["items"]] == [False]


def test_another_projects_decisions_are_not_listed(api: Api, call: Callable[..., Api], worker: Worker) -> None:
    api("POST", "/scans", {"image": "registry.example.com/shop/cart:1"})
    worker.finish(simple())
    made = api("POST", "/advisories/revocations", {"engine": "trivy", "version": "0.76.0"})
    path = made.headers["Location"].partition("/api/v1")[2]
    assert len(api("GET", path).json["items"]) == 1
    assert call("read", projects=("other",))("GET", path).json["items"] == []
