"""The audit log's page: narrowed by its address, and taken away with the links of the chain."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.model.audit import Action
from scanner.store import audit
from scanner.store.session import Database
from tests.actors import person
from tests.web.pages.test_policies import Form


@pytest.fixture
def form(app: OpenAPI, make_token: Callable[..., str], database: Database) -> Form:
    with database.session() as session:
        audit.record(session, person("dora"), Action.POLICY_WRITE, "production")
        audit.record(session, person("sam"), Action.EXEMPTION_APPROVE, "<b>one</b>", detail={"note": "<script>"})
    return Form(app.test_client(), make_token())


@pytest.mark.parametrize(
    ("query", "dora", "sam"),
    [
        ("", True, True),
        ("actor=dora", True, False),
        ("action=exemption", False, True),
        ("object=production", True, False),
    ],
)
def test_filters(form: Form, query: str, dora: bool, sam: bool) -> None:
    text = form.client.get(f"/audit-log?{query}", headers=form.headers).text
    assert ("<code>policy.write" in text) is dora
    assert ("<code>exemption.approve" in text) is sam
    assert "<b>one" not in text
    assert "<script>" not in text.partition("<table")[2]


def test_days(form: Form) -> None:
    today = datetime.now(UTC).date()
    assert "<code>policy.write" in form.client.get(f"/audit-log?since={today}&until={today}", headers=form.headers).text
    tomorrow = today + timedelta(days=1)
    assert "No matching entries" in form.client.get(f"/audit-log?since={tomorrow}", headers=form.headers).text
    assert form.client.get("/audit-log?since=someday", headers=form.headers).status_code == 422


def test_what_fits_can_be_taken_away(form: Form) -> None:
    page = form.client.get("/audit-log?actor=dora", headers=form.headers).text
    link = page.partition('href="/api/v1/audit-log/export')[2].partition('"')[0].replace("&amp;", "&")
    lines = form.client.get("/api/v1/audit-log/export" + link, headers=form.headers).data.splitlines()
    assert [orjson.loads(line)["actor"] for line in lines] == ["dora"]
