"""Who is affected by a vulnerability: whose images, since when; hostile words of an advisory stay words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.model.finding import CVSS
from scanner.model.scan import ScanRequest
from scanner.store import scans
from scanner.store.session import Database
from tests.reports_factory import simple, vulnerability
from tests.web.conftest import Worker
from tests.web.pages.test_policies import Form
from web.pages.vulnerabilities import Known

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
        worker.finish(simple(found))
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
    assert Known.of({}) == Known(None, None, (), (), (), ())
