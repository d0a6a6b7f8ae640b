"""The editor: what is refused comes back as it was typed, and nobody's version is overwritten unseen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

GOOD = (
    "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: ours}\nrules:\n  - id: a\n    check: "
    "root-user\n    action: deny\n"
)


class Form:
    """A browser that has signed in, and sends forms as our pages do."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self.client = client
        self.headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        assert client.post("/sign-in", data={"token": token}, headers=self.headers).status_code == 303
        page = client.get("/images", headers=self.headers).text
        self.csrf = page.partition('name="csrf_token" value="')[2].partition('"')[0]

    def __call__(self, path: str, **data: str) -> TestResponse:
        return self.client.post(path, data={"csrf_token": self.csrf, **data}, headers=self.headers)


@pytest.fixture
def form(app: OpenAPI, make_token: Callable[..., str]) -> Form:
    return Form(app.test_client(), make_token())


def test_saving_and_saving_again(form: Form) -> None:
    first = form("/policies", text=GOOD.replace("\n", "\r\n"), version="0", name="")
    assert (first.status_code, first.headers["Location"]) == (303, "/policies/ours")
    assert form("/policies", text=GOOD.replace("deny", "warn"), version="1", name="ours").status_code == 303
    page = form.client.get("/policies/ours", headers=form.headers).text
    assert "Changes from version 1 to version 2" in page
    assert form.client.get("/policies/ours?version=9", headers=form.headers).status_code == 404


@pytest.mark.parametrize("version", ["0", "7", "x", "-1", "9" * 20])
def test_somebody_was_faster(form: Form, version: str) -> None:
    form("/policies", text=GOOD, version="0", name="")
    answer = form("/policies", text=GOOD.replace("deny", "warn"), version=version, name="ours")
    assert answer.status_code == 409
    assert "Somebody else saved a new version" in answer.text
    assert "action: warn" in answer.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("check:", "chek:"), "did you mean"),
        (GOOD.replace("ours", "other"), "cannot be renamed"),
        ("rules: [", "Line"),
        ("", "must be a mapping with apiVersion"),
    ],
)
def test_what_is_refused_comes_back(form: Form, text: str, message: str) -> None:
    form("/policies", text=GOOD, version="0", name="")
    answer = form("/policies", text=text, version="1", name="ours")
    assert answer.status_code == 422
    assert message in answer.text
    assert form.client.get("/policies/ours/edit", headers=form.headers).text.count("action: deny") == 1


def test_trying_what_is_wrong_says_so(form: Form) -> None:
    assert "did you mean" in form("/policies/dry-run", text=GOOD.replace("check:", "chek:")).text
    assert "There are no scanned images" in form("/policies/dry-run", text=GOOD).text
    assert "The policy is valid" in form("/policies/validate", text=GOOD).text


def test_who_only_reads_cannot_write(app: OpenAPI, make_token: Callable[..., str]) -> None:
    reader = Form(app.test_client(), make_token("read"))
    assert reader("/policies", text=GOOD, version="0", name="").status_code == 403
    assert "New policy" not in reader.client.get("/policies", headers=reader.headers).text


def test_hostile_text_is_shown_as_text(form: Form) -> None:
    answer = form("/policies", text="<script>alert(1)</script>: '\"</textarea><img src=x>'", version="0", name="")
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text
    assert "</textarea><img" not in answer.text
