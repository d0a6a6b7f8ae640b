"""An image whose every word is hostile, on every page, in every file and every report: words they stay.

In a real Chromium: no dialog, no script but ours, no violation of the CSP, no element that a word of the image made.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner import catalog
from scanner.model.finding import (
    CheckResult,
    Component,
    Evidence,
    Failed,
    Incomplete,
    Signer,
    TrustStatus,
    Verification,
)
from scanner.model.image import HistoryEntry, PathSize
from scanner.model.scan import ScanReport, ScanRequest
from scanner.store import deliveries, scans
from scanner.store.registries import RegistryView
from scanner.store.session import Database
from tests.reports_factory import engine, image_report, report, vulnerability
from tests.web.conftest import KEY, Worker
from tests.web.pages.test_policies import Form

WORD = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}${7*7}"
FORMULA = '=HYPERLINK("http://evil.example","x")'
VULNERABILITY = "CVE-2026-0666"
TARGET = "registry.example.com/shop/app:1"


@dataclass(frozen=True)
class Served:
    """The app with the image in it, listening."""

    url: str
    token: str
    digest: str
    scan: str


def hostile() -> ScanReport:
    """Evidence as a scan of such an image would leave it: the model bounds and cleans nothing that a page must show."""
    found = vulnerability(
        VULNERABILITY,
        package=WORD,
        title=WORD,
        description=WORD,
        url="javascript:alert(3)",
        references=("javascript:alert(4)", WORD),
        aliases=(WORD,),
        cwes=(WORD,),
        path=WORD,
    )
    answer = engine(
        [replace(found, purl=f"pkg:deb/debian/{FORMULA}@1", installed_version=FORMULA, fixed_versions=(WORD,))]
    )
    named = Component(f"pkg:pypi/{WORD}@1", FORMULA, WORD, WORD, licenses=(WORD,), path=WORD)
    answer = replace(answer, components=(*answer.components, named), incomplete=(Incomplete("nothing_to_scan", WORD),))
    item = image_report([answer])
    config = replace(
        item.image.config,
        user=WORD,
        labels=((WORD, WORD),),
        env=((WORD, WORD),),
        entrypoint=(WORD,),
        cmd=(WORD,),
        working_dir=WORD,
        history=(HistoryEntry(WORD, layer=0),),
        author=WORD,
    )
    largest = (PathSize(WORD, 10, 2, directory=True), PathSize(f"{WORD}/{WORD}", 10))
    layers = tuple(replace(layer, created_by=WORD, files=1, largest=largest) for layer in item.image.layers)
    outcome = Failed((Evidence(WORD, path=WORD, instruction=WORD, layer_index=0),), remedy=WORD)
    signed = Verification(
        "cosign", TrustStatus.REFUSED, reason="signature", detail=WORD, signers=(Signer(WORD, WORD, WORD, WORD),)
    )
    checks = tuple(CheckResult(name, outcome) for name in catalog.image_checks())
    item = replace(
        item,
        image=replace(item.image, config=config, layers=layers),
        checks=checks,
        verifications=(signed,),
        incomplete=(Incomplete("x", WORD),),
    )
    return report(item)


@pytest.fixture
def served(
    address: str, make_token: Callable[..., str], database: Database, worker: Worker, registry: RegistryView
) -> Served:
    found = hostile()
    with database.session() as session:
        ticket = scans.request(session, ScanRequest(TARGET, source="api", requested_by=WORD))
        hook, _ = deliveries.create_hook(session, WORD, "distribution", registry.id, KEY)
        deliveries.record(session, hook, "key", 1, WORD)
    worker.finish(found)
    with database.session() as session:
        failing = scans.request(session, ScanRequest(f"{TARGET}2", source="api", requested_by=WORD)).scan_id
        claim = scans.claim(session, "w", ("push",), 60)
        assert claim
        scans.fail(session, claim, "malformed_image", WORD)
    return Served(address, make_token(), str(found.digest), failing or ticket.scan_id)


def pages(served: Served) -> list[str]:
    image = f"/images/{served.digest}"
    tabs = ("vulnerabilities", "checks", "signatures", "components", "layers", "history")
    return [
        "/overview",
        "/images",
        "/images?q=%3Cimg%20src%3Dx%3E",
        *(f"{image}?tab={tab}" for tab in tabs),
        f"{image}/compare?with={served.digest}",
        "/vulnerabilities",
        f"/vulnerabilities/{VULNERABILITY}",
        "/scans",
        f"/scans/{served.scan}",
        "/events",
        "/registries",
        "/audit-log",
        "/exemptions",
        "/exemptions/new?subject=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "/settings",
        "/no/such/%3Cscript%3E",
    ]


def test_no_page_runs_it(served: Served, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on(
        "console", lambda m: complaints.append(m.text) if m.type == "error" and "status of 4" not in m.text else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(served.url + "/")
    page.get_by_label("API token").fill(served.token)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/overview")
    seen = 0
    for path in pages(served):
        page.goto(served.url + path)
        seen += page.content().count("&lt;img src=x")
        strange = page.evaluate("document.querySelectorAll('img, iframe, object, embed, script:not([nonce])').length")
        assert strange == 0, path
        links = page.evaluate(  # a link in a picture (SVG) has no protocol of its own
            "[...document.querySelectorAll('a')].map(a => new URL(a.href.baseVal ?? a.href, location).protocol)"
        )
        assert set(links) <= {"http:", "https:"}, path
        assert "49" not in page.locator("h1").first.inner_text()
    context.close()
    assert complaints == []
    assert seen > 20, "the hostile words were not on the pages at all"


@pytest.mark.parametrize("name", sorted(catalog.reports()))
def test_no_report_carries_it(app: OpenAPI, served: Served, name: str) -> None:
    form = Form(app.test_client(), served.token)
    answer = form.client.get(f"/images/{served.digest}/report?format={name}", headers=form.headers)
    assert answer.status_code == 200, answer.text[:300]
    assert "attachment" in answer.headers["Content-Disposition"]
    if answer.mimetype in ("text/html", "application/xml", "text/xml"):
        assert "<img src=x" not in answer.text
        assert "<script>alert" not in answer.text
        assert "javascript:alert" not in answer.text.partition("href=")[2][:40]
    if answer.mimetype == "text/csv":
        assert not any(cell.startswith(("=", "+", "@")) for row in csv.reader(io.StringIO(answer.text)) for cell in row)
    assert "\x1b" not in answer.text


@pytest.mark.parametrize("path", ["/images", "/vulnerabilities", f"/vulnerabilities/{VULNERABILITY}", "/exemptions"])
def test_no_file_carries_it(app: OpenAPI, served: Served, path: str) -> None:
    form = Form(app.test_client(), served.token)
    text = form.client.get(f"{path}?format=csv", headers=form.headers).text
    assert not any(cell.startswith(("=", "+", "@")) for row in csv.reader(io.StringIO(text)) for cell in row)
