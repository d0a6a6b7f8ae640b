"""One's own account: sessions end where one says so, and a password is changed by who knows it."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask_openapi3.openapi import OpenAPI

from scanner.store.session import Database
from tests.web.pages.test_exemptions import Somebody
from tests.web.pages.test_policies import Form
from tests.web.people import PASSWORD, person


def test_signing_out_elsewhere_and_everywhere(app: OpenAPI, database: Database) -> None:
    person(database, "dora", "developer", member_of=["shop"])
    here, there = Somebody(app, "dora"), Somebody(app, "dora")
    seen = here.see("/account")
    assert "shop" in seen
    (other,) = re.findall(r"/account/sessions/([0-9a-f]{64})/end", seen)
    assert here(f"/account/sessions/{other}/end").status_code == 303
    assert there.client.get("/account", headers=there.headers).headers["Location"].startswith("/sign-in")
    assert here(f"/account/sessions/{'0' * 64}/end").status_code == 422
    again = Somebody(app, "dora")
    assert here("/account/sign-out-everywhere").status_code == 303
    for who in (here, again):
        assert who.client.get("/account", headers=who.headers).status_code == 303


def test_another_password(app: OpenAPI, database: Database) -> None:
    person(database, "dora", "developer")
    here = Somebody(app, "dora")
    wrong = here("/account/password", current="not the one", new="another horse battery")
    assert wrong.status_code == 422
    assert "the current password is wrong" in wrong.text
    assert "another horse battery" not in wrong.text
    assert re.search(r'name="current"[^>]*aria-invalid="true"', wrong.text)
    short = here("/account/password", current=PASSWORD, new="short")
    assert short.status_code == 422
    assert re.search(r'name="new"[^>]*aria-invalid="true"', short.text)
    assert here("/account/password", current=PASSWORD, new="another horse battery").status_code == 303
    assert here.client.get("/account", headers=here.headers).status_code == 303  # signed out everywhere


def test_a_token_that_belongs_to_nobody(app: OpenAPI, make_token: Callable[..., str]) -> None:
    form = Form(app.test_client(), make_token("read"))
    seen = form.client.get("/account", headers=form.headers).text
    assert "a token that has no owner" in seen
    assert "Change password" not in seen


def test_without_a_project_the_pages_say_why_they_are_empty(app: OpenAPI, database: Database) -> None:
    person(database, "dora", "developer")
    person(database, "eve", "developer", member_of=["shop"])
    assert "You belong to no project" in Somebody(app, "dora").see("/images")
    assert "You belong to no project" not in Somebody(app, "eve").see("/images")


def test_an_address_without_a_page_leads_back(app: OpenAPI, database: Database) -> None:
    person(database, "dora", "developer")
    here = Somebody(app, "dora")
    answer = here.client.get("/nothing", headers={**here.headers, "Accept": "text/html"})
    assert answer.status_code == 404
    assert "there is nothing at this address" in answer.text
    assert 'class="brand"' in answer.text
