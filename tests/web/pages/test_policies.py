"""The editor: what is refused comes back as it was typed, and nobody's version is overwritten unseen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from scanner.model.finding import Severity
from scanner.services import dry_runs
from scanner.store import jobs
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker

GOOD = (
    "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: ours}\nrules:\n  - id: a\n    check: "
    "root-user\n    action: deny\n"
)


class Form:
    """A browser that has signed in, and sends forms as our pages do."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self.client, self.token = client, token
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
    assert "Another user saved a new version" in answer.text
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


# Dry runs

CRITICALS = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: ours}
rules:
  - {id: no-criticals, vulnerability: {severity: [critical]}, action: %s}
"""
HTMX = {"HX-Request": "true"}


@pytest.fixture
def scanned(form: Form, api: Api, worker: Worker) -> str:
    """The digest of an image with a critical vulnerability, which the policy ``ours`` only warns of."""
    api("PUT", "/policies/ours", {"text": CRITICALS % "warn"})
    package = make.package(1)
    flaws = [make.vulnerability(1, package, severity=Severity.CRITICAL)]
    found = make.report("bad", packages=[package], vulnerabilities=flaws)
    api("POST", "/scans", {"image": f"{make.REPOSITORY}@{found.digest}"})
    worker.finish(found)
    return str(found.digest)


def run_dry_run(database: Database) -> None:
    with database.session() as session:
        job = jobs.claim(session, "test-worker", {jobs.DRY_RUN: None}, 600)
    assert job
    dry_runs.Examination(database, job).run()


def test_a_dry_run_shows_its_share_first_and_then_what_would_change(
    form: Form, scanned: str, database: Database
) -> None:
    started = form("/policies/dry-run", text=CRITICALS % "deny", version="1", name="ours")
    assert started.status_code == 303, "it works without JavaScript"
    waiting = form.client.get(started.headers["Location"], headers=form.headers).text
    assert "Queued" in waiting
    assert "No verdict would change" not in waiting
    assert 'http-equiv="refresh"' in waiting
    run_dry_run(database)
    page = form.client.get(started.headers["Location"], headers=form.headers).text
    assert page.index("1 of 1</strong> images (100 %) examined") < page.index("newly denied")
    assert "no-criticals" in page
    assert scanned in page
    assert "Save anyway" in page
    inline = form.client.get(started.headers["Location"], headers=form.headers | HTMX).text
    assert "<html" not in inline
    assert "no-criticals" in inline
    other = form.client.get(f"{started.headers['Location']}&rule=another&project=x", headers=form.headers).text
    assert scanned not in other


def test_saving_asks_if_something_would_be_denied(form: Form, scanned: str, database: Database) -> None:
    asked = form("/policies", text=CRITICALS % "deny", version="1", name="ours")
    assert asked.status_code == 303
    question = form.client.get(asked.headers["Location"], headers=form.headers).text
    assert "Save ours?" in question
    assert "not saved yet" in question
    assert form.client.get("/policies/ours", headers=form.headers).text.count("action: deny") == 0
    saved = form("/policies", text=CRITICALS % "deny", version="1", name="ours", confirmed="1")
    assert saved.headers["Location"] == "/policies/ours"
    assert form("/policies", text=CRITICALS % "warn", version="2", name="ours").headers["Location"] == "/policies/ours"


def test_saving_asks_with_the_dry_run_that_has_finished(form: Form, scanned: str, database: Database) -> None:
    started = form("/policies/dry-run", text=CRITICALS % "deny", version="1", name="ours")
    run_dry_run(database)
    asked = form("/policies", text=CRITICALS % "deny", version="1", name="ours")
    assert asked.status_code == 303
    assert urlsplit(asked.location).path == urlsplit(started.location).path
    assert "asks=1" in asked.location
    with database.read() as session:
        assert len(jobs.list_jobs(session, [jobs.DRY_RUN])) == 1


def test_a_finished_dry_run_that_denies_nothing_is_enough_to_save(form: Form, scanned: str, database: Database) -> None:
    form("/policies/dry-run", text=CRITICALS % "warn", version="1", name="ours")
    run_dry_run(database)
    saved = form("/policies", text=CRITICALS % "warn", version="1", name="ours")
    assert urlsplit(saved.location).path == "/policies/ours"


def test_the_text_of_a_dry_run_is_edited_again(form: Form) -> None:
    page = form("/policies/text", text=GOOD, version="7", name="ours").text
    assert "id: a" in page
    assert 'name="version" value="7"' in page


def test_a_dry_run_that_did_not_finish_says_so(form: Form, scanned: str, database: Database) -> None:
    started = form("/policies/dry-run", text=CRITICALS % "deny", version="1", name="ours")
    path = started.headers["Location"].partition("?")[0]
    assert form(f"{path}/cancel").status_code == 303
    assert form(f"{path}/cancel").status_code == 303, "it has ended"
    page = form.client.get(path, headers=form.headers).text
    assert "ended before everything was examined" in page
    assert "No verdict would change" not in page


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("", "No verdict would change"),
        ("match: {images: [elsewhere.example.com/x]}\n", "applies to nothing"),
    ],
)
def test_nothing_changes_only_if_everything_was_examined(
    form: Form, scanned: str, database: Database, match: str, message: str
) -> None:
    text = (CRITICALS % "warn").replace("rules:", f"{match}rules:").replace("ours", "other" if match else "ours")
    started = form("/policies/dry-run", text=text, version="0", name="")
    run_dry_run(database)
    assert message in form.client.get(started.headers["Location"], headers=form.headers).text


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("day", ["2001-01-01", "yesterday"])
def test_a_day_that_cannot_be_examined(form: Form, day: str, headers: dict[str, str]) -> None:
    form.headers |= headers
    answer = form("/policies/dry-run", text=GOOD, version="0", name="", as_of=day)
    assert answer.status_code == (200 if headers else 422)
    assert day in answer.text


def test_a_past_day(form: Form, scanned: str, database: Database) -> None:
    day = (datetime.now(UTC) - timedelta(days=30)).date().isoformat()
    started = form("/policies/dry-run", text=CRITICALS % "deny", version="1", name="ours", as_of=day)
    run_dry_run(database)
    page = form.client.get(started.headers["Location"], headers=form.headers).text
    assert f"as of {day}" in page
    assert "1 had no evidence yet on that day" in page
    assert "No verdict of those that were examined would change" in page


# The editor


@pytest.mark.parametrize("name", ["baseline", "production", "pci-cis", "signed-only"])
def test_a_policy_starts_from_a_chosen_text(form: Form, name: str) -> None:
    page = form.client.get(f"/policies/new?start={name}", headers=form.headers).text
    assert f"name: {name}" in page
    assert 'aria-current="true">' + name in page
    assert "Denies only what is dangerous" in page, "each is explained"


def test_an_unknown_start_is_the_usual_one_and_an_edit_has_none(form: Form) -> None:
    assert "name: production" in form.client.get("/policies/new?start=other", headers=form.headers).text
    form("/policies", text=GOOD, version="0", name="")
    assert "Start from" not in form.client.get("/policies/ours/edit", headers=form.headers).text


def test_the_editor_has_its_schema_and_works_without_scripts(form: Form) -> None:
    page = form.client.get("/policies/new", headers=form.headers).text
    assert '<textarea id="text" name="text"' in page
    assert 'data-schema="/policies/editor/schema.json"' in page
    schema = form.client.get("/policies/editor/schema.json", headers=form.headers)
    assert schema.mimetype == "application/schema+json"
    assert schema.json["title"] == "Dockwarden policy"
