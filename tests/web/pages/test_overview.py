"""The overview: every number is the number of rows of the list that it links to."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.errors import ImageError
from scanner.model.finding import Incomplete
from scanner.model.scan import ScanRequest
from scanner.services import inventory
from scanner.store import policies, scans
from scanner.store.session import Database
from tests.actors import ownerless
from tests.reports_factory import engine, image_report, report, vulnerability
from tests.scanner.workloads import sins
from tests.web.conftest import Api, Worker
from tests.web.pages.test_policies import Form

PRODUCTION = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: production}
match: {images: ["**"], environments: [production]}
rules:
  - {id: no-high, vulnerability: {severity: [high]}, action: deny}
"""


def scanned(database: Database, worker: Worker, name: str, *found: object, gap: bool = False) -> None:
    target = f"registry.example.com/shop/{name}:1"
    with database.session() as session:
        scans.request(session, ScanRequest(target, source="api"))
    gaps = (Incomplete("unsupported_os", "the system is not known"),) if gap else ()
    worker.finish(report(image_report([engine(list(found))], incomplete=gaps, seed=name)))  # type: ignore[arg-type]


@pytest.fixture(params=["a policy for production", "no policy"])
def form(
    app: OpenAPI, make_token: Callable[..., str], database: Database, worker: Worker, request: pytest.FixtureRequest
) -> Form:
    if request.param == "a policy for production":
        with database.session() as session:
            policies.put(session, "production", PRODUCTION, "sam", if_version=0)
    scanned(database, worker, "clean")
    scanned(database, worker, "critical", vulnerability("CVE-2026-1", "openssl", "critical"))
    scanned(database, worker, "high", vulnerability("CVE-2026-2", "zlib", "high"))
    scanned(database, worker, "low", vulnerability("CVE-2026-3", "curl", "low"))
    scanned(database, worker, "unknown", gap=True)
    with database.session() as session:
        scans.request(session, ScanRequest("registry.example.com/shop/gone:1", source="api"))
    worker.fail(ImageError("it is damaged"))
    documents = inventory.parse("kubernetes", [("web.yaml", sins.KUBERNETES_BAD)])
    snapshot = inventory.Snapshot("production", "kubernetes", "cluster", 1, documents)
    inventory.report(database, ownerless("agent", "inventory"), snapshot, "trivy")
    return Form(app.test_client(), make_token())


def test_each_number_is_that_of_its_list(form: Form) -> None:
    page = form.client.get("/overview", headers=form.headers).text
    links = re.findall(r'<a class="stat-inline" href="([^"]+)">([\d,]+)</a>', page)
    links += re.findall(r'<a href="(/images\?verdict=\w+)">.*?<strong>([\d,]+)</strong></a></li>', page)
    links += re.findall(r'<h2 id="fleet"><a href="([^"]+)">([\d,]+)</a>', page)
    links += re.findall(r'<a href="(/scans\?state=unrepeated)">(\d+) scan', page)
    assert len(links) >= 10, links
    for href, number in links:
        address = unescape(href)
        rows = form.client.get(address + ("&" if "?" in address else "?") + "format=json", headers=form.headers)
        assert len(rows.get_json()) == int(number), address
    assert "shop/critical:1" in page or "shop/high:1" in page  # a tag is named, not a repository


def test_denied_in_production_is_what_the_gate_says_there(form: Form, api: Api) -> None:
    listed = form.client.get("/images?denied_in=production&format=json", headers=form.headers).get_json()
    names = {row["repository"].rpartition("/")[2] for row in listed}
    said = set()
    for name in ("clean", "critical", "high", "low", "unknown"):
        asked = {"image": f"registry.example.com/shop/{name}:1", "environment": "production"}
        digest = next(
            row["digest"] for row in form.client.get(f"/images?q={name}&format=json", headers=form.headers).get_json()
        )
        asked["image"] = asked["image"].removesuffix(":1") + f"@{digest}"
        answer = api("POST", "/gate", json=asked)
        assert answer.status_code == 200, answer.text
        if answer.get_json()["verdict"] == "deny":
            said.add(name)
    assert names == said
    assert "high" in said or "critical" in said


def test_scans_that_failed_are_named_where_there_is_no_image_yet(
    app: OpenAPI, make_token: Callable[..., str], database: Database, worker: Worker
) -> None:
    form = Form(app.test_client(), make_token())
    assert "so there is nothing to show" not in form.client.get("/overview", headers=form.headers).text
    with database.session() as session:
        scans.request(session, ScanRequest("registry.example.com/shop/gone:1", source="api"))
    worker.fail(ImageError("it is damaged"))
    for path in ("/overview", "/images"):
        text = form.client.get(path, headers=form.headers).text
        assert '1 scan failed, so there is nothing to show. <a href="/scans?state=unrepeated">See why</a>' in text
