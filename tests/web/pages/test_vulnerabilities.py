"""Who is affected by a vulnerability: whose images, since when; hostile words of an advisory stay words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.config import Secret
from scanner.model.agreement import findings
from scanner.model.finding import CVSS
from scanner.model.scan import ScanRequest
from scanner.policy.exempted import not_affected
from scanner.store import channels, listings, scans, vex
from scanner.store.session import Database
from tests.reports_factory import engine, image_report, report, vulnerability
from tests.web.conftest import Worker
from tests.web.pages.test_policies import Form
from tests.web.people import PASSWORD, person
from web.pages.vulnerabilities import VulnerabilityDetails

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def form(app: OpenAPI, make_token: Callable[..., str], database: Database, worker: Worker) -> Form:
    bad = vulnerability(
        "CVE-2026-7",
        title=HOSTILE,
        description=HOSTILE,
        url="javascript:alert(1)",
        references=("https://example.com/a", "data:text/html,x"),
        aliases=(HOSTILE,),
        cvss=(CVSS("3.1", "CVSS:3.1/AV:N", 9.8, HOSTILE),),
        known_exploited=True,
        epss=0.25,
    )
    for name, found in (
        ("registry.example.com/shop/app:1", bad),
        ("registry.example.com/shop/job:2", replace(bad, fixed_versions=())),
    ):
        with database.session() as session:
            scans.request(session, ScanRequest(name, source="api"))
        worker.finish(report(image_report([engine([found])], seed=name)))
    return Form(app.test_client(), make_token())


def test_whom_it_concerns(form: Form) -> None:
    page = form.client.get("/vulnerabilities/CVE-2026-7", headers=form.headers).text
    assert "shop/app:1" in page
    assert "shop/job:2" in page
    assert "yes, listed by CISA" in page
    assert "25.0 %" in page
    rows = form.client.get("/vulnerabilities/CVE-2026-7?format=json", headers=form.headers).get_json()
    assert all(row["first_seen"] and row["project"] == "default" for row in rows)


def test_what_an_advisory_says_is_text(form: Form) -> None:
    page = form.client.get("/vulnerabilities/CVE-2026-7", headers=form.headers).text
    assert "<img src=x" not in page
    assert 'href="javascript' not in page
    assert 'href="data' not in page
    assert 'href="https://example.com/a"' in page
    assert "<img src=x" not in form.client.get("/vulnerabilities", headers=form.headers).text


def test_what_touches_nothing_is_not_there(form: Form) -> None:
    assert form.client.get("/vulnerabilities/CVE-1999-1", headers=form.headers).status_code == 404


def test_a_document_that_an_older_version_wrote() -> None:
    assert VulnerabilityDetails.of({}) == VulnerabilityDetails(None, None, (), (), (), ())


def test_what_runs_comes_before_what_is_stored_and_a_fix_is_a_version(form: Form) -> None:
    page = form.client.get("/vulnerabilities/CVE-2026-7", headers=form.headers).text
    assert '<span class="mono small">2.0</span>' in page
    assert '<span class="mono small">2.0</span>' in form.client.get("/vulnerabilities", headers=form.headers).text


def test_an_exemption_is_asked_for_all_that_are_affected(form: Form) -> None:
    page = form.client.get("/vulnerabilities/CVE-2026-7", headers=form.headers).text
    link = "/exemptions/new?project=default&amp;subject=CVE-2026-7&amp;affected=1"
    assert link in page
    asked = form.client.get(unescape(link), headers=form.headers).text
    images = asked.partition('name="images"')[2].partition(">")[2].partition("</textarea>")[0].split()
    assert set(images) == {"registry.example.com/shop/app", "registry.example.com/shop/job"}
    other = form.client.get("/exemptions/new?project=others&subject=CVE-2026-7&affected=1", headers=form.headers)
    assert other.status_code == 404


def test_who_is_in_no_project_is_shown_no_project_s_images(app: OpenAPI, form: Form, database: Database) -> None:
    person(database, "eve", "developer")
    client = app.test_client()
    signed_in = client.post(
        "/sign-in", data={"name": "eve", "password": PASSWORD}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert signed_in.status_code == 303
    asked = client.get("/exemptions/new?project=default&subject=CVE-2026-7&affected=1")
    assert "registry.example.com/shop" not in asked.text


def test_a_watch_is_a_subscription_with_its_condition(form: Form, database: Database) -> None:
    page = form.client.get("/vulnerabilities/CVE-2026-7", headers=form.headers).text
    link = re.search(r'href="(/notifications/subscriptions/new[^"]+)"', page)
    assert link
    nothing = form.client.get(unescape(link[1]), headers=form.headers).text
    instead = re.search(r'href="(/notifications/subscriptions/new[^"]+)">Subscribe a channel instead', nothing)
    assert "No channel for people yet" in nothing
    assert instead
    assert "No channel yet" in form.client.get(unescape(instead[1]), headers=form.headers).text
    with database.session() as session:
        mail = {"server": "smtp.example.com", "sender": "dockwarden@example.com", "domains": "example.com"}
        key = Secret("a secret key for tests, long enough")
        named: dict[str, Any] = {"name": "Mail", "format_": "email", "project": "default", "created_by": "kim"}
        channels.add(session, key, settings=mail, secrets={}, **named)
    for address in (link[1], instead[1]):
        asked = form.client.get(unescape(address), headers=form.headers).text
        assert "event.vulnerability == &#34;CVE-2026-7&#34;" in asked


@pytest.mark.parametrize("scope", ["images", "packages"])
def test_a_vex_statement_is_made_on_the_page(form: Form, database: Database, scope: str) -> None:
    assert (
        "VEX statement about CVE-2026-7"
        in form.client.get("/vulnerabilities/CVE-2026-7/vex", headers=form.headers).text
    )
    fields = {"project": "default", "status": "not_affected", "scope": scope}
    refused = form("/vulnerabilities/CVE-2026-7/vex", **fields)
    assert refused.status_code == 422
    assert "needs a justification" in refused.text
    assert re.search(r'name="justification" aria-invalid="true"', refused.text)
    fields |= {"justification": "vulnerable_code_not_present", "impact": "We build without it."}
    made = form("/vulnerabilities/CVE-2026-7/vex", **fields)
    assert made.headers["Location"] == "/vulnerabilities/CVE-2026-7#vex"
    page = form.client.get("/vulnerabilities/CVE-2026-7", headers=form.headers).text
    assert "We build without it." in page
    with database.read() as session:
        statements = vex.applicable(session, "default", ["CVE-2026-7"])
        _, evidence = listings.newest_report(session, _digest(form), None)
    (image,) = evidence.images
    assert not_affected(findings(image.engines)[0], image, statements, datetime.now(UTC))


def test_a_statement_is_refused_with_its_reason(form: Form) -> None:
    fields = {"project": "default", "status": "affected", "scope": "images"}
    assert "explain the statement" in form("/vulnerabilities/CVE-2026-7/vex", **fields).text
    assert form("/vulnerabilities/CVE-2026-7/vex", **{**fields, "status": "fine"}).status_code == 422
    assert form("/vulnerabilities/CVE-1999-1/vex", **{**fields, "impact": "because"}).status_code == 404
    assert form.client.get("/vulnerabilities/CVE-1999-1/vex", headers=form.headers).status_code == 404


def _digest(form: Form) -> str:
    return str(form.client.get("/images?format=json", headers=form.headers).get_json()[0]["digest"])


@pytest.mark.parametrize(
    ("query", "count"),
    [("fixable=1", 1), ("exploited=1", 1), ("new=1", 1), ("sort=name", 1), ("sort=-published", 1), ("q=nothing", 0)],
)
def test_the_list_is_narrowed_and_sorted(form: Form, query: str, count: int) -> None:
    answer = form.client.get(f"/vulnerabilities?{query}&format=json", headers=form.headers)
    assert len(answer.get_json()) == count
