"""The list of images: narrowed by its address, kept under a name, taken away as a file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.lineage import BaseImage
from scanner.model.scan import ScanReport, ScanRequest
from scanner.store import saved_views, scans
from scanner.store.session import Database
from tests.reports_factory import simple, vulnerability
from tests.web.conftest import Worker
from tests.web.pages.test_policies import Form
from web.pages import export


@pytest.fixture
def form(app: OpenAPI, make_token: Callable[..., str], database: Database, worker: Worker) -> Form:
    for name, found in (
        ("registry.example.com/shop/clean:1", _signed()),
        ("registry.example.com/shop/bad:1", simple(vulnerability(severity="critical", known_exploited=True))),
        ("other.example.com/=cmd/low:1", simple(vulnerability(severity="low", fixed=None))),
    ):
        with database.session() as session:
            scans.request(session, ScanRequest(name, source="api"))
        worker.finish(found)
    return Form(app.test_client(), make_token())


def _signed() -> ScanReport:
    """Clean, signed by a team that is trusted, on a base that is known."""
    found = simple()
    signed = Verification("cosign", TrustStatus.VERIFIED, signers=(Signer("release-team"),))
    base = BaseImage("annotations", "docker.io/library/debian:12")
    return replace(found, images=(replace(found.images[0], verifications=(signed,), base=base),))


def names(form: Form, query: str) -> list[str]:
    rows = form.client.get(f"/images?{query}&format=json", headers=form.headers).get_json()
    return sorted(row["repository"].rpartition("/")[2] for row in rows)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["bad", "clean", "low"]),
        ("severity=critical", ["bad"]),
        ("severity=critical&severity=low", ["bad", "low"]),
        ("fixable=1", ["bad"]),
        ("registry=other.example.com", ["low"]),
        ("registry=%25", []),
        ("project=nobody", []),
        ("exploited=1", ["bad"]),
        ("signer=release-team", ["clean"]),
        ("signer=-", ["bad", "low"]),
        ("base=docker.io/library/debian:12", ["clean"]),
        ("verdict=allow&q=shop", ["clean"]),
        ("severity=nonsense", ["bad", "clean", "low"]),
    ],
)
def test_every_filter_narrows(form: Form, query: str, expected: list[str]) -> None:
    assert names(form, query) == expected


def test_the_counts_beside_the_list(form: Form) -> None:
    page = form.client.get("/images", headers=form.headers).text
    assert "other.example.com (1)" in page
    assert "registry.example.com (2)" in page


def test_a_file_holds_what_is_on_screen(form: Form) -> None:
    answer = form.client.get("/images?q=low&format=csv", headers=form.headers)
    assert "images.csv" in answer.headers["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["repository"], row["low"], row["undecided"]) == ("other.example.com/=cmd/low", "1", "false")
    assert form.client.get("/images?format=exe", headers=form.headers).status_code == 400


def test_no_cell_is_a_formula() -> None:
    text = export.as_csv(["a"], [{"a": value} for value in ("=1+1", "+1", "-1", "@x", "\tx", "\r=x", "plain", -1)])
    cells = [row[0] for row in csv.reader(io.StringIO(text, newline=""))]
    assert cells == ["a", "'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\r=x", "plain", "-1"]


def test_views_are_kept_and_forgotten(form: Form, app: OpenAPI, make_token: Callable[..., str]) -> None:
    kept = form("/views", list="images", name="Denied <now>", query="verdict=deny")
    assert kept.headers["Location"] == "/images?verdict=deny"
    assert 'href="/images?verdict=deny">Denied &lt;now&gt;' in form.client.get("/images", headers=form.headers).text
    somebody_else = Form(app.test_client(), make_token())
    assert "&lt;now&gt;" not in somebody_else.client.get("/images", headers=somebody_else.headers).text
    form("/views/remove", list="images", name="Denied <now>")
    assert "&lt;now&gt;" not in form.client.get("/images", headers=form.headers).text
    assert form("/views", list="nothing", name="x", query="").status_code == 422


def test_there_is_an_end_to_views(form: Form) -> None:
    for number in range(saved_views.MOST):
        assert form("/views", list="images", name=f"view {number}", query="").status_code == 303
    refused = form("/views", list="images", name="one <more>", query="q=bad")
    assert refused.headers["Location"] == "/images?q=bad#view"
    shown = form.client.get("/images?q=bad", headers=form.headers).text
    assert "you have 30 saved views, which is the maximum (remove one first)" in shown
    assert 'value="one &lt;more&gt;" aria-invalid="true"' in shown  # the name is kept, and marked
    assert "which is the maximum" not in form.client.get("/images?q=bad", headers=form.headers).text  # once
    assert form("/views", list="images", name="view 1", query="q=x").status_code == 303


@pytest.fixture
def shown(form: Form, database: Database, worker: Worker) -> Callable[..., str]:
    """The page of an image that several names have, of which this one was scanned last."""
    with database.session() as session:
        scans.request(session, ScanRequest("registry.example.com/shop/bad:1", source="api", force=True))
    worker.finish(simple(vulnerability(severity="critical", known_exploited=True)))
    rows = form.client.get("/images?q=bad&format=json", headers=form.headers).get_json()

    def get(query: str = "", **headers: str) -> str:
        return str(form.client.get(f"/images/{rows[0]['digest']}?{query}", headers={**form.headers, **headers}).text)

    return get


def test_an_image_is_scanned_again_by_its_digest(shown: Callable[..., str], form: Form, database: Database) -> None:
    page = shown()
    reference = re.search(r'name="image" value="([^"]+)"', page)
    assert reference
    assert "shop/bad:1@sha256:" in reference[1]
    answer = form("/images/scan", image=reference[1], force="1")
    assert answer.headers["Location"].startswith("/scans/")
    with database.read() as session:
        assert reference[1] in {row.request.target for row in scans.list_scans(session, None).items}


def test_a_refused_reference_comes_back_with_its_problem(form: Form) -> None:
    answer = form("/images/scan", image="Shop App:1")
    assert answer.status_code == 422
    assert re.search(r'name="image"[^>]*value="Shop App:1" aria-invalid="true"', answer.text)
    assert "not an image reference" in answer.text


def test_a_refused_revocation_comes_back_with_its_problem(form: Form) -> None:
    answer = form("/advisories/revocations", digest="latest", reason="wrong results")
    assert answer.status_code == 422
    assert re.search(r'name="digest"[^>]*value="latest" aria-invalid="true"', answer.text)
    assert 'value="wrong results"' in answer.text
    answer = form("/advisories/revocations", engine="trivy")
    assert re.search(r'name="version"[^>]*aria-invalid="true"', answer.text)


def test_what_to_do_is_a_sentence(shown: Callable[..., str]) -> None:
    """Stored decisions are JSON: the page once showed empty points."""
    steps = re.search(r"<h3>What to do</h3><ul>(.*?)</ul>", shown(), re.DOTALL)
    assert steps
    assert re.match(r"<li>Upgrade [a-z]", steps[1]), steps[1]
    assert "<li></li>" not in steps[1]


def test_tags_and_reports_are_told_apart(shown: Callable[..., str]) -> None:
    page = shown()
    export_menu = page.partition("Export report")[2].partition("</details>")[0]
    assert "SARIF 2.1.0" in export_menu
    assert "format=sarif" in export_menu
    tags = page.partition("<h2>Tags</h2>")[2].partition("</div>")[0]
    assert "<strong>1</strong>" in tags
    assert "sarif" not in tags


def test_only_the_rows_are_answered_to_a_filter(shown: Callable[..., str]) -> None:
    rows = shown("tab=vulnerabilities&severity=critical", **{"HX-Request": "true"})
    assert "<html" not in rows
    assert "CVE-2026-1" in rows
    assert "No vulnerability matches" in shown("severity=low")
    assert "No check matches" in shown("tab=checks&q=nothing+of+the+kind")
    assert "Clear filters" in shown("tab=components&q=nothing+of+the+kind")


def test_layers_of_evidence_that_lists_no_files(shown: Callable[..., str]) -> None:
    page = shown("tab=layers")
    assert "This evidence does not list files. Scan the image again to see them." in page
    assert 'href="#layer-0"' in page
