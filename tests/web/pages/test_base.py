"""Error pages: what a form sent is kept, never a secret, and only for our own pages. Parts of pages ask again."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner import catalog
from scanner.store.session import Database
from tests.web.conftest import Api
from tests.web.pages.test_policies import GOOD, Form
from web.pages.base import _SECRET

TEMPLATES = Path(__file__).parents[3] / "web/templates"


@pytest.fixture
def form(app: OpenAPI, make_token: Callable[..., str]) -> Form:
    return Form(app.test_client(), make_token())


def _sent_again(page: str) -> dict[str, str]:
    """The fields of the form that submits the entries again, as a browser would send them."""
    kept = page.partition("Your entries are kept")[2]
    return {unescape(name): unescape(text) for name, text in re.findall(r'name="([^"]*)" value="([^"]*)"', kept)}


def test_a_policy_survives_the_end_of_its_session(form: Form) -> None:
    text = GOOD + "# « \n" * 3
    form("/sign-out")
    ended = form("/policies", text=text, version="0", name="")
    assert ended.status_code == 401
    assert "Your session has ended" in ended.text
    assert 'target="_blank"' in ended.text
    # In the new tab. The first tab has the token of the former session, which is refused with a new one.
    token = Form(form.client, form.token)
    assert token.csrf != form.csrf
    saved = form("/policies", **_sent_again(ended.text))
    assert saved.headers["Location"] == "/policies/ours", "one click"
    assert unescape(form.client.get("/policies/ours/edit", headers=form.headers).text).count("# « ") == 3


def test_kept_entries_belong_to_a_browser_and_an_address(app: OpenAPI, form: Form) -> None:
    """Otherwise another site, or another person, could have them submitted."""
    form("/sign-out")
    kept = _sent_again(form("/policies", text=GOOD, version="0", name="").text)
    forged = {**kept, "csrf_token": form.csrf}
    form = Form(form.client, form.token)
    headers = {**form.headers, "Sec-Fetch-Site": "cross-site"}
    assert form.client.post("/policies", data=forged, headers=headers).status_code == 403
    assert form("/policies/validate", **forged).status_code == 403
    assert form("/policies", **{**forged, "kept_form_token": "0" * 64}).status_code == 403
    elsewhere = Form(app.test_client(), form.token)
    assert elsewhere("/policies", **forged).status_code == 403
    assert form("/policies", **forged).status_code == 303


def test_the_token_of_kept_entries_is_no_entry(form: Form) -> None:
    form("/sign-out")
    ended = form("/policies", text=GOOD, version="0", name="")
    again = form("/policies", **_sent_again(ended.text))
    assert again.status_code == 401
    assert "type it again" not in again.text
    assert set(_sent_again(again.text)) == set(_sent_again(ended.text))


def test_a_secret_is_typed_again(form: Form) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"
    entries = {"host": "<b>", "password": "hunter2", "ca_pem": key, "csrf_token": "former"}
    page = form("/registries", **entries)
    assert page.status_code == 403
    assert "hunter2" not in page.text
    assert "PRIVATE KEY" not in page.text
    assert "<b>" not in page.text
    sent = _sent_again(page.text)
    assert len(sent.pop("kept_form_token")) == 64
    assert sent == {"csrf_token": form.csrf, "host": "<b>"}
    assert all(f'name="{name}" type="password"' in page.text for name in ("ca_pem", "password"))


def test_entries_of_another_site_are_not_shown(form: Form) -> None:
    headers = {**form.headers, "Sec-Fetch-Site": "cross-site"}
    page = form.client.post("/registries", data={"host": "forged.example"}, headers=headers)
    assert page.status_code == 403
    assert "forged.example" not in page.text
    assert form.csrf not in page.text


def test_a_refusal_for_good_offers_no_second_try(form: Form) -> None:
    assert "Your entries are kept" not in form("/exemptions/00000000-0000-4000-8000-000000000000/approve").text


def test_what_is_too_large_is_said(form: Form) -> None:
    page = form("/registries", host="x" * 1_100_000)
    assert page.status_code == 413
    assert "Your entries are kept" not in page.text
    assert "Go back in your browser, and shorten what you typed." in page.text


def test_a_form_of_a_megabyte_is_read(form: Form) -> None:
    """A long certificate or policy is answered like a short one, with what was typed."""
    text = "# " + "x" * 700_000 + "\n"
    page = form("/policies", text=text, version="0", name="")
    assert page.status_code == 422
    assert text in unescape(page.text)


def test_every_field_for_a_secret_is_known_by_its_name() -> None:
    html = "".join(path.read_text() for path in TEMPLATES.glob("*.html"))
    named = set(re.findall(r'name="(\w+)"[^>]*type="password"', html)) - {"name"}
    of_channels = {f.name for each in catalog.channels().values() for f in each.fields if f.secret}
    assert {"password", "token", "new", "current"} <= named
    assert [name for name in named | of_channels if not _SECRET.match(name)] == []


def test_a_field_that_is_shown_is_kept() -> None:
    """An exemption for one package, without its package, would be for all of them."""
    html = "".join(path.read_text() for path in TEMPLATES.glob("*.html"))
    fields = [tag for tag in re.findall(r"<(?:input|select|textarea)[^>]*>", html) if 'type="password"' not in tag]
    named = {name for tag in fields for name in re.findall(r' name="(\w+)"', tag)} - {"csrf_token", "token", "new"}
    assert "purl" in named
    assert [name for name in named if _SECRET.match(name)] == []


@pytest.mark.parametrize("path", ["/images?q=x", "/scans"])
def test_a_part_of_a_page_leads_to_the_sign_in(form: Form, path: str) -> None:
    form("/sign-out")
    headers = {**form.headers, "HX-Request": "true", "HX-Current-URL": f"http://localhost{path}"}
    answer = form.client.get(path, headers=headers)
    assert answer.status_code == 401
    assert unquote(answer.headers["HX-Redirect"]) == f"/sign-in?next={path}"
    for address in ("http://localhost//evil.example", "http://[", ""):
        away = form.client.get(path, headers={**headers, "HX-Current-URL": address})
        assert (away.status_code, away.headers["HX-Redirect"]) == (401, "/sign-in")


def test_a_text_is_not_left_for_the_sign_in(form: Form) -> None:
    form("/sign-out")
    answer = form.client.post("/policies/validate", data={"text": GOOD}, headers={**form.headers, "HX-Request": "true"})
    assert answer.status_code == 401
    assert "Your text is kept on this page" in answer.text
    assert "<html" not in answer.text


def test_a_part_that_failed_is_loaded_again(form: Form, database: Database, api: Api) -> None:
    with database.session() as session:
        session.exec_driver_sql("ALTER TABLE listing RENAME TO away")
    answer = form.client.get("/images", headers={**form.headers, "HX-Request": "true"})
    assert answer.status_code >= 500
    assert 'hx-get="/images" hx-trigger="load delay:5s"' in answer.text
    assert "<html" not in answer.text
