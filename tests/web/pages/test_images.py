"""The list of images: narrowed by its address, kept under a name, taken away as a file."""

from __future__ import annotations

import csv
import io
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
    kept = form("/images/views", name="Denied <now>", query="verdict=deny")
    assert kept.headers["Location"] == "/images?verdict=deny"
    assert 'href="/images?verdict=deny">Denied &lt;now&gt;' in form.client.get("/images", headers=form.headers).text
    somebody_else = Form(app.test_client(), make_token())
    assert "&lt;now&gt;" not in somebody_else.client.get("/images", headers=somebody_else.headers).text
    form("/images/views/remove", name="Denied <now>")
    assert "&lt;now&gt;" not in form.client.get("/images", headers=form.headers).text
    assert form("/images/views", name=" ", query="").status_code == 422


def test_there_is_an_end_to_views(form: Form) -> None:
    for number in range(saved_views.MOST):
        assert form("/images/views", name=f"view {number}", query="").status_code == 303
    assert form("/images/views", name="one more", query="").status_code == 409
    assert form("/images/views", name="view 1", query="q=x").status_code == 303
