"""An image that two engines looked at: who says what, the distribution's words, how long it is supported, and
somebody's SBOM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.model.finding import Component, Coverage
from scanner.model.reference import Digest
from scanner.model.scan import AttachedSbom, ScanReport, ScanRequest
from scanner.store import scans
from scanner.store.session import Database
from tests.reports_factory import engine, image_report, report, vulnerability
from tests.web.conftest import Api, Worker

SBOM = Digest.of(b"an SBOM")


def found() -> ScanReport:
    system = Coverage("debian", "12", True, 10, (), date(2028, 6, 30))
    waits = vulnerability("CVE-2026-7", "bash", "low", fixed=None, status="will_not_fix")
    trivy = replace(engine([vulnerability(), vulnerability("CVE-2026-8", "curl"), waits]), coverage=system)
    clair = replace(engine([vulnerability(severity="low"), waits]), engine="clair", version="v4", coverage=system)
    inside = (Component("pkg:generic/vendored@1", "vendored<script>", "1", "generic"),)
    attached = (AttachedSbom(SBOM, "cyclonedx", inside), AttachedSbom(SBOM, "spdx", problem="not JSON <b>"))
    return report(replace(image_report([trivy, clair]), attached=attached))


@pytest.fixture
def digest(database: Database, worker: Worker) -> str:
    with database.session() as session:
        scans.request(session, ScanRequest("registry.example.com/shop/app:1", engine="both", source="api"))
    shown = found()
    worker.finish(shown)
    return str(shown.digest)


def test_the_page_shows_who_says_what(app: OpenAPI, make_token: Callable[..., str], digest: str) -> None:
    headers = {"Authorization": f"Bearer {make_token()}"}
    page = app.test_client().get(f"/images/{digest}", headers=headers).text
    assert "Engines disagree" in page
    assert "not reported" in page
    assert "supported until 2028-06-30" in page
    assert "will not be fixed" in page
    parts = app.test_client().get(f"/images/{digest}?tab=components", headers=headers).text
    assert "The scan did not find 1 of them" in parts
    assert "not JSON &lt;b&gt;" in parts
    assert "<script>alert" not in parts


def test_the_api_shows_who_says_what(api: Api, digest: str) -> None:
    items = api("GET", f"/images/{digest}/findings?disputed=true").json["items"]
    assert [(i["vulnerability"]["id"], [o["word"] for o in i["opinions"]]) for i in items] == [
        ("CVE-2026-8", ["affected", "silent"]),
        ("CVE-2026-1", ["affected", "affected"]),
    ]
    assert [o["severity"] for o in items[1]["opinions"]] == ["critical", "low"]
    agreed = api("GET", f"/images/{digest}/findings?disputed=false").json["items"]
    assert [i["vulnerability"]["id"] for i in agreed] == ["CVE-2026-7"]
    unfixed = api("GET", f"/images/{digest}/findings?status=will_not_fix").json["items"]
    assert [i["vulnerability"]["engines"] for i in unfixed] == [["trivy", "clair"]]
    (image,) = api("GET", f"/images/{digest}").json["images"]
    assert (image["system"], image["end_of_life"]) == ("debian 12", "2028-06-30")


def test_the_api_tells_our_own_packages_from_what_an_sbom_lists(api: Api, digest: str) -> None:
    ours = api("GET", f"/images/{digest}/components").json["items"]
    assert {(i["component"]["name"], i["attached"]) for i in ours} == {
        ("openssl", None),
        ("curl", None),
        ("bash", None),
    }
    theirs = api("GET", f"/images/{digest}/components?attached=true").json["items"]
    assert [(i["component"]["name"], i["attached"]) for i in theirs] == [("vendored<script>", str(SBOM))]


@pytest.mark.parametrize("form", ["sarif", "junit", "gitlab", "cyclonedx", "spdx", "openvex", "csv", "html"])
def test_every_report_can_be_fetched(api: Api, digest: str, form: str) -> None:
    answer = api("GET", f"/images/{digest}/report?format={form}")
    assert answer.status_code == 200
    assert answer.data
