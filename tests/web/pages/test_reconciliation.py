"""The page of a registry's polls and import, and the same by the API and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from flask_openapi3.openapi import OpenAPI

from scanner.cli import cli
from scanner.model.scan import ScanRequest
from scanner.services import reconciliation as use_cases
from scanner.store import deliveries, jobs, reconciliation, scans
from scanner.store.reconciliation import FoundKind
from scanner.store.schema import job
from scanner.store.session import Database, moment
from tests.web.conftest import KEY, Api
from tests.web.pages.test_exemptions import Somebody
from tests.web.people import person

DIGEST, FORMER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture
def admin(app: OpenAPI, database: Database) -> Somebody:
    person(database, "ada", "admin")
    return Somebody(app, "ada")


@pytest.fixture
def place(admin: Somebody) -> str:
    """The page of the polls of a registry."""
    answer = admin("/registries", host="registry.example:5000")
    return urlsplit(answer.headers["Location"]).path.replace("/edit", "/polls")


def test_settings_are_kept_and_a_mistake_is_marked(admin: Somebody, place: str, database: Database) -> None:
    assert "Never polled" in admin.see(place)
    assert admin(place, interval="3600", include="shop/**\r\nteam/app", exclude="cache/**").status_code == 303
    seen = admin.see(place)
    assert '<option value="3600" selected>every hour' in seen
    assert "shop/**\nteam/app" in seen
    assert admin(place, interval="3600", list_by="catalog").status_code == 303
    assert '<option value="catalog" selected>' in admin.see(place)
    answer = admin(place, interval="3600", list_by="guess")
    assert (answer.status_code, "one of auto, own, catalog, known" in answer.text) == (422, True)
    assert admin(place, interval="3600", include="shop/**\r\nteam/app").status_code == 303
    answer = admin(place, interval="3600", include="a" * 600)
    assert answer.status_code == 422
    assert "at most 500 characters" in answer.text
    with database.read() as session:
        assert reconciliation.get(session, place.split("/")[2]).include == ("shop/**", "team/app")


def test_a_poll_and_an_import_are_requested_shown_and_cancelled(admin: Somebody, place: str) -> None:
    assert admin(f"{place}/now").status_code == 303
    assert admin(f"{place}/count", import_include="shop/**").status_code == 303
    seen = admin.see(f"{place}/progress")
    assert "every 3s" in seen
    assert "Last count" in seen
    assert admin(f"{place}/import").status_code == 303, "a count is replaced"
    answer = admin(f"{place}/import")
    assert (answer.status_code, "is unfinished" in answer.text) == (422, True)
    assert admin(f"{place}/cancel-import").status_code == 303
    assert "Cancelled" in admin.see(place)
    assert admin(f"{place}/something").status_code == 404


def test_what_was_lost_is_shown_with_its_webhook_and_its_scan(admin: Somebody, place: str, database: Database) -> None:
    registry_id = place.split("/")[2]
    with database.session() as session:
        hook, _ = deliveries.create_hook(session, "pushes <of> ci", "distribution", registry_id, KEY)
        ticket = scans.request(session, ScanRequest("registry.example:5000/app:1", source="poll"))
        name = ("registry.example:5000/app", "1", DIGEST)
        reconciliation.add(
            session, registry_id, "job", FoundKind.LOST, name, former=FORMER, webhook_id=hook, scan_id=ticket.scan_id
        )
        counts = {"tags": 3, "repositories": 2, "lost": 1, "left": 4, "errors": 1}
        by = reconciliation.ListedBy("catalog", "the registry's catalog", "the API of Harbor is not used: <i>no</i>")
        reconciliation.record_poll(session, registry_id, counts, ["<b>app</b>: no"], complete=False, listing=by)
    seen = admin.see(place)
    assert "Repositories listed by the registry&#39;s catalog; the API" in seen
    assert "the API of Harbor is not used: &lt;i&gt;no" in seen
    for text in (
        "1 lost push<",
        "pushes &lt;of&gt; ci",
        "registry.example:5000/app:1",
        ticket.scan_id,
        "4 older tags",
    ):
        assert text in seen
    assert "<b>app" not in seen
    assert "1 lost" in admin.see("/registries")
    assert "registry.example:5000/app:1" in admin.see("/events")


def test_a_result_that_is_old_or_not_whole_is_not_shown_as_clean(
    admin: Somebody, place: str, database: Database
) -> None:
    registry_id = place.split("/")[2]
    counts = {"tags": 3, "repositories": 2, "lost": 0}
    by = reconciliation.ListedBy("catalog", "the catalogue", "")

    def seen(problems: list[str], **more: int) -> str:
        with database.session() as session:
            reconciliation.record_poll(
                session, registry_id, {**counts, **more}, problems, complete=not problems, listing=by
            )
        return admin.see(place)

    assert '<span class="verdict allow">No lost push</span>' in seen([])
    assert '<span class="verdict undecided">No lost push seen</span>' in seen(["app: no"], errors=1)
    assert admin(f"{place}/now").status_code == 303
    with database.session() as session:
        session.execute(job.update().values(state="failed", message="HTTP 403", finished_at=moment(session)))
    shown = seen([])
    assert "The last poll that finished: 3 tags" in shown
    assert '<span class="verdict undecided">No lost push until then</span>' in shown
    assert "verdict allow" not in shown


def test_the_api_polls_imports_and_lists(call: Callable[..., Api], place: str, database: Database) -> None:
    api, path = call(), f"/registries/{place.split('/')[2]}"
    settings = api("PUT", f"{path}/poll", {"interval_seconds": 900, "include": ["shop/**"]})
    assert (settings.status_code, settings.json["interval_seconds"], settings.json["last"]) == (200, 900, None)
    assert api("PUT", f"{path}/poll", {"interval_seconds": 10}).status_code == 422
    assert api("PUT", f"{path}/poll", {"exclude": ["x"]}).json["include"] == ["shop/**"]
    assert settings.json["list_by"] == "auto"
    assert api("PUT", f"{path}/poll", {"list_by": "catalog"}).json["list_by"] == "catalog"
    assert api("PUT", f"{path}/poll", {"exclude": []}).json["list_by"] == "catalog"
    assert api("PUT", f"{path}/poll", {"list_by": "best"}).status_code == 422
    assert api("GET", f"{path}/import").status_code == 204
    assert api("POST", f"{path}/poll").json["state"] == "queued"
    started = api("POST", f"{path}/import", {"dry_run": True})
    assert (started.status_code, started.json["phase"], started.json["seconds_left"]) == (202, "counting", None)
    assert api("POST", f"{path}/import", {}).json["dry_run"] is False
    assert api("POST", f"{path}/import", {}).status_code == 409
    assert api("POST", f"{path}/import/cancel").json["state"] == "cancelled"
    assert api("POST", f"{path}/import/cancel").status_code == 409
    with database.session() as session:
        held = jobs.claim(session, "w", {jobs.POLL: None}, 60)
        assert held is not None
        jobs.finish(session, held, "done it")
        name = ("registry.example:5000/app", "1", DIGEST)
        reconciliation.add(session, place.split("/")[2], "job", FoundKind.UNANNOUNCED, name)
        by = reconciliation.ListedBy("harbor", "the API of Harbor")
        reconciliation.record_poll(session, place.split("/")[2], {"tags": 1}, [], complete=True, listing=by)
    read = api("GET", f"{path}/poll").json
    assert (read["run"]["message"], read["last"]["tags"], read["last"]["lost"]) == ("done it", 1, 0)
    assert read["listed_by"] == {"id": "harbor", "title": "the API of Harbor", "note": ""}
    assert api("GET", f"{path}/import").json["listed_by"] is None
    (item,) = api("GET", f"{path}/found").json["items"]
    assert (item["kind"], item["former"], item["scan"]) == ("unannounced", None, None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (600, "10 min"), (12_000, "3 h 20 min"), (400_000, "4 d 15 h")]
)
def test_an_estimate_reads_well(seconds: int, text: str) -> None:
    assert use_cases.duration(seconds) == text


def test_the_command_line_does_the_same(
    place: str, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("DOCKWARDEN_DATABASE_URL", url)
    monkeypatch.setenv("DOCKWARDEN_HOME", str(tmp_path))

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli, ["registry", *words[:1], "registry.example:5000", *words[1:]])
        return f"{done.output}{done.exception or ''}"

    assert "polled every 15 min" in run("poll", "--every", "15m", "--include", "shop/**")
    assert "not polled" in run("poll", "--every", "off")
    assert "repositories listed by: known" in run("poll", "--list-by", "known")
    assert "listed by" not in run("poll", "--list-by", "auto")
    assert "give --status alone" in run("poll", "--list-by", "own", "--status")
    assert "only: shop/**" in run("poll", "--status")
    assert "5 minutes to 7 days" in run("poll", "--every", "1m")
    assert "not an interval" in run("poll", "--every", "often")
    assert "a worker polls" in run("poll")
    assert "last poll: unfinished" in run("poll", "--status")
    with database.session() as session:
        by = reconciliation.ListedBy("known", "the repositories that pushes have named", "the API is not used: no")
        reconciliation.record_poll(session, place.split("/")[2], {"tags": 1}, [], complete=True, listing=by)
    shown = run("poll", "--status")
    assert "repositories listed by the repositories that pushes have named" in shown
    assert "note: the API is not used: no" in shown
    assert "was never imported" in run("import", "--status")
    assert "count unfinished (counting)" in run("import", "--dry-run")
    assert "give --status or --cancel alone" in run("import", "--status", "--dry-run")
    assert "import cancelled" in run("import") + run("import", "--cancel")
