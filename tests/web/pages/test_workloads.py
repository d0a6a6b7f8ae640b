"""The pages of what runs: worst first, both verdicts, lines and remedies, drift, and nothing hostile."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI

from scanner.errors import ConflictError
from scanner.services import inventory
from scanner.store import accounts
from scanner.store.session import Database
from tests.actors import ownerless
from tests.scanner.store import factories
from tests.scanner.store.test_inventory import mounting, named, scanned
from tests.scanner.workloads import sins
from tests.web.conftest import KEY
from tests.web.pages.test_policies import Form

AGENT = ownerless("agent", "inventory")
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def client(app: OpenAPI, database: Database) -> FlaskClient:
    with database.session() as session:
        text = accounts.create_token(session, "reader", ["read", "propose"], KEY)[1].reveal()
    client: FlaskClient = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {text}"
    return client


def report(database: Database, found: list[dict[str, Any]], generation: int = 1) -> None:
    snapshot = inventory.Snapshot("production", "kubernetes", "cluster", generation, found)
    inventory.report(database, AGENT, snapshot, "trivy")


def one(client: FlaskClient) -> str:
    listed = client.get("/workloads?format=json").json
    assert listed
    uid = client.get("/api/v1/workloads").json["items"][0]["id"]  # type: ignore[index]
    return client.get(f"/workloads/{uid}").text


def test_an_empty_inventory_says_how_to_push(client: FlaskClient) -> None:
    assert "dockwarden inventory push docker" in client.get("/workloads").text


def test_both_verdicts_stand_side_by_side_and_findings_name_lines(client: FlaskClient, database: Database) -> None:
    report(database, inventory.parse("kubernetes", [("web.yaml", sins.KUBERNETES_BAD)]))
    listed = client.get("/workloads").text
    assert "Deployment/web · app" in listed
    assert "Not scanned yet" in listed
    page = one(client)
    assert "web.yaml:17" in page
    assert "readOnlyRootFilesystem: true" in page
    assert "not-a-real-one" not in page


def test_two_agents_that_report_one_source_are_named(client: FlaskClient, database: Database) -> None:
    def snapshot(agent: str, generation: int) -> inventory.Snapshot:
        return inventory.Snapshot("production", "kubernetes", "cluster", generation, named("w"), agent, 60)

    inventory.report(database, AGENT, snapshot("host-a docker", 1), "trivy")
    assert "Another one was refused" not in client.get("/workloads").text
    with pytest.raises(ConflictError):
        inventory.report(database, AGENT, snapshot("<b>host-b", 2), "trivy")
    page = client.get("/workloads").text
    banner = page.partition('<p class="banner">')[2].partition("</p>")[0]
    assert "host-a docker" in banner
    assert "&lt;b&gt;host-b, with token agent" in banner
    (source,) = client.get("/api/v1/inventory").json["items"]  # type: ignore[index]
    assert (source["agent"], source["contested"]) == ("host-a docker", True)
    assert source["refused_agent"] == "<b>host-b, with token agent"


def test_another_digest_of_the_same_tag_in_another_environment_is_named(
    client: FlaskClient, database: Database
) -> None:
    tested, deployed, elsewhere = (f"sha256:{digit * 64}" for digit in "abc")
    for environment, name, digest in (
        ("production", "cart:1", deployed),
        ("staging", "cart:1", tested),
        ("test", "cart:1", deployed),
        ("staging", "other:1", elsewhere),
    ):
        found = named("web", image=f"registry.example.com/shop/{name}@{digest}")
        snapshot = inventory.Snapshot(environment, "kubernetes", name.replace(":", "-"), 1, found)
        inventory.report(database, AGENT, snapshot, "trivy")
    items = client.get("/api/v1/workloads?environment=production").json["items"]  # type: ignore[index]
    page = client.get(f"/workloads/{items[0]['id']}").text
    banner = page.partition("Not the same image in every environment.")[2].partition("</p>")[0]
    assert f"environment=staging&amp;digest={tested}" in banner
    assert "in test" not in banner
    assert "ccc" not in banner
    same = client.get("/api/v1/workloads?environment=test").json["items"]  # type: ignore[index]
    assert f"environment=staging&amp;digest={tested}" in client.get(f"/workloads/{same[0]['id']}").text


def test_a_tag_that_moved_since_is_drift(client: FlaskClient, database: Database) -> None:
    former = factories.report("former")
    scanned(database, former)
    report(database, named("a", image=f"{factories.REPOSITORY}:1@{former.digest}"))
    assert "The tag was moved" not in one(client)
    scanned(database, factories.report("newer"))
    assert "The tag was moved" in one(client)


def test_what_runs_is_named_first_where_a_vulnerability_is_shown(client: FlaskClient, database: Database) -> None:
    flaw = factories.package(1)
    digest = scanned(database, factories.report(packages=[flaw], vulnerabilities=[factories.vulnerability(1, flaw)]))
    report(database, named("shop", image=f"{factories.REPOSITORY}@{digest}", labels=[["team", "payments"]]))
    page = client.get("/vulnerabilities/CVE-2026-00001").text
    assert "1 of 1 affected image runs in production" in page
    assert page.index("Running workloads") < page.index("<h2>Affected images")
    assert "1 workload in production" in client.get(f"/images/{digest}").text
    assert factories.REPOSITORY in client.get("/images?running=production").text
    assert "No matching image" in client.get("/images?running=staging").text
    assert "1 workload runs" in client.get("/overview").text


def test_a_workload_that_mounts_an_image_is_named_with_it(client: FlaskClient, database: Database) -> None:
    flaw = factories.package(1)
    digest = scanned(database, factories.report(packages=[flaw], vulnerabilities=[factories.vulnerability(1, flaw)]))
    report(database, mounting(digest))
    shown = f'<span class="muted">mounts</span> {factories.REPOSITORY}@{digest[:19]}…'
    page = client.get("/vulnerabilities/CVE-2026-00001").text
    assert "1 of 1 affected image runs in production" in page
    assert (page.count(shown), page.count(">another<")) == (1, 0)
    assert client.get(f"/workloads?image={factories.REPOSITORY}").text.count(shown) == 1
    assert "2 workloads in production" in client.get(f"/images/{digest}").text


def test_an_image_that_is_not_known_is_no_engine(client: FlaskClient, database: Database) -> None:
    custom = "apiVersion: example.com/v1\nkind: Lamp\nmetadata: {name: a}\nspec: {image: 'example.com/lamp:1'}\n"
    report(database, inventory.parse("kubernetes", [("lamp.yaml", custom)]))
    listed = client.get("/workloads").text
    for page in (listed, one(client)):
        assert ("not known" in page, "an engine" in page) == (True, False)


def test_a_source_that_is_no_more_is_removed(
    client: FlaskClient, app: OpenAPI, database: Database, make_token: Callable[..., str]
) -> None:
    report(database, named("a", "b"))
    assert ">Remove</button>" not in client.get("/workloads").text  # a reader has no such button
    form = Form(app.test_client(), make_token())
    page = form.client.get("/workloads", headers=form.headers).text
    found = re.search(r'action="(/workloads/sources/[0-9a-f-]{36}/remove)"', page)
    assert found, page
    assert form(found[1]).status_code == 303
    assert form(found[1]).status_code == 404
    assert "No workload has been reported yet" in form.client.get("/workloads", headers=form.headers).text


def test_hostile_names_are_text(client: FlaskClient, database: Database) -> None:
    labels = [["team", HOSTILE]]
    report(database, named(f"{HOSTILE} · app", namespace=HOSTILE, labels=labels, image=HOSTILE, privileged=True))
    for page in (client.get("/workloads").text, one(client), client.get("/overview").text):
        assert HOSTILE not in page


def test_running_workloads_are_counted_by_environment_and_verdict(client: FlaskClient, database: Database) -> None:
    report(database, named("a", "b", privileged=True))
    assert 'dockwarden_workloads{environment="production",verdict="deny"} 2.0' in client.get("/metrics").text
