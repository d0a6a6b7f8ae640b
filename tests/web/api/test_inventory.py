"""The inventory by the API: a token that may report and nothing else, snapshots, lists with facets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scanner import catalog
from scanner.model.finding import CheckResult, Evidence, Failed, Severity
from scanner.services import decisions
from scanner.services import inventory as use_cases
from scanner.store import gate, policies, scans
from scanner.store.session import Database
from tests.scanner.store import factories
from tests.scanner.workloads import sins
from tests.web.conftest import Api, Worker
from web.api.inventory import BODY_LIMIT

POLICY = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: all}
match: {images: ["**"]}
incomplete: deny
advisories: {max_age: 5200w}
rules:
  - {id: no-criticals, vulnerability: {severity: [critical]}, action: deny}
"""
NAMED = {"environment": "production", "source": "kubernetes", "name": "cluster"}


def workloads(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": n, "image": f"{factories.REPOSITORY}:1", "source": "kubernetes", **more} for n in names]


def body(generation: int = 1, *names: str, **more: Any) -> dict[str, Any]:
    return {**NAMED, "generation": generation, "workloads": workloads(*names), **more}


@pytest.fixture
def agent(call: Callable[..., Api]) -> Api:
    return call("inventory")


def test_an_agent_reports_and_may_do_nothing_else(agent: Api, api: Api) -> None:
    done = agent("POST", "/inventory", body(1, "a", "b"))
    assert done.status_code == 200, done.text
    assert (done.json["added"], len(done.json["scans"])) == (2, 1)
    for method, path in (("GET", "/workloads"), ("GET", "/inventory"), ("GET", "/images"), ("POST", "/gate")):
        assert agent(method, path, {} if method == "POST" else None).status_code == 403
    assert [item["name"] for item in api("GET", "/workloads").json["items"]] == ["b", "a"]


def test_documents_are_read_by_their_source_and_findings_name_lines(agent: Api, api: Api) -> None:
    documents = [{"file": "web.yaml", "text": sins.KUBERNETES_BAD}]
    sent = {**NAMED, "generation": 1, "documents": documents}
    assert agent("POST", "/inventory", sent).status_code == 200
    row = api("GET", "/workloads").json["items"][0]
    one = api("GET", f"/workloads/{row['id']}").json
    failed = {c["check"]: c["outcome"]["evidence"][0] for c in one["checks"] if c["outcome"]["kind"] == "failed"}
    assert failed["privileged-container"]["path"] == "web.yaml"
    assert failed["privileged-container"]["line"] == 17
    assert one["decision"]["verdict"] == "deny"
    assert "not-a-real-one" not in str(one)


def test_snapshots_out_of_order_are_refused(agent: Api, api: Api) -> None:
    agent("POST", "/inventory", body(7, "a"))
    refused = agent("POST", "/inventory", body(6, "b"))
    assert (refused.status_code, refused.json["reason"]) == (409, "out_of_order")
    assert [item["name"] for item in api("GET", "/workloads").json["items"]] == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"workloads": None},
        {"documents": [], "workloads": []},
        {"environment": "No"},
        {"source": "vmware"},
        {"generation": "1"},
        {"workloads": [{"name": "a", "image": "x", "source": "kubernetes", "env": []}]},
        {"workloads": None, "documents": [{"file": "a", "text": "{{ .Values }}"}]},
    ],
)
def test_what_is_no_snapshot_is_refused_with_a_reason(agent: Api, api: Api, wrong: dict[str, Any]) -> None:
    answer = agent("POST", "/inventory", {**body(1, "a"), **wrong})
    assert answer.status_code == 422, answer.text
    assert answer.json["detail"]
    assert api("GET", "/workloads").json["items"] == []


def test_a_snapshot_may_be_larger_than_other_bodies_and_is_bounded(agent: Api, api: Api) -> None:
    some = {"labels": [["note", "x" * 1000]]}
    large = {**body(1), "workloads": workloads(*(f"w{n}" for n in range(2000)), **some)}
    assert agent("POST", "/inventory", large).json["added"] == 2000
    too_large = {**body(2), "workloads": workloads("a", labels=[["note", "x" * BODY_LIMIT]])}
    assert agent("POST", "/inventory", too_large).status_code == 413
    assert api("GET", "/workloads").json["facets"]["environment"] == {"production": 2000}


def test_lists_are_narrowed_counted_and_paged(agent: Api, api: Api) -> None:
    team = {"labels": [["team", "shop"]], "namespace": "shop"}
    agent("POST", "/inventory", {**body(1), "workloads": workloads("a", **team) + workloads("b", privileged=True)})
    agent("POST", "/inventory", body(1, "t", environment="test"))
    for query, names in {
        "environment=test": ["t"],
        "namespace=shop": ["a"],
        "owner=shop": ["a"],
        "check=privileged-container": ["b"],
        "verdict=deny": ["b"],
        f"image={factories.REPOSITORY}&environment=production": ["b", "a"],
        "search=B": ["b"],
    }.items():
        assert [item["name"] for item in api("GET", f"/workloads?{query}").json["items"]] == names, query
    first = api("GET", "/workloads?limit=2").json
    rest = api("GET", f"/workloads?limit=2&cursor={first['next_cursor']}").json
    assert len(first["items"]) + len(rest["items"]) == 3
    assert first["facets"]["verdict"] == {"deny": 1, "undecided": 2}


def test_sources_are_listed_and_removed(agent: Api, api: Api, call: Callable[..., Api]) -> None:
    agent("POST", "/inventory", body(1, "a"))
    source = api("GET", "/inventory").json["items"][0]
    assert (source["name"], source["workloads"], source["reported_by"]) == ("cluster", 1, "token test")
    assert api("DELETE", f"/inventory/{source['id']}").status_code == 204
    assert api("GET", "/workloads").json["items"] == []


def test_another_project_sees_and_reports_nothing(agent: Api, call: Callable[..., Api], database: Database) -> None:
    agent("POST", "/inventory", body(1, "a"))
    stranger = call("read", "inventory", projects=["elsewhere"])
    page = stranger("GET", "/workloads").json
    assert (page["items"], page["facets"]["environment"], page["facets"]["source"]) == ([], {}, {})
    assert stranger("GET", "/inventory").json["items"] == []
    assert stranger("POST", "/inventory", body(2, "b")).status_code == 403


def test_a_tag_that_is_another_digest_in_another_environment(agent: Api, api: Api, database: Database) -> None:
    """It is found in both, as soon as one of them changes, and no longer when they are the same again."""
    tested, deployed = (f"sha256:{digit * 64}" for digit in "ab")

    def runs(environment: str, generation: int, digest: str) -> None:
        image = f"{factories.REPOSITORY}:1@{digest}"
        sent = [{"name": "web", "image": image, "source": "kubernetes", "elsewhere": {"digest": "", "others": []}}]
        told = body(generation, environment=environment, workloads=sent)
        assert agent("POST", "/inventory", told).status_code == 200
        use_cases.refresh(database, seconds=60)

    def found() -> dict[str, dict[str, list[str]]]:
        items = api("GET", "/workloads?check=digest-differs-elsewhere").json["items"]
        return {each["environment"]: api("GET", f"/workloads/{each['id']}").json["other_digests"] for each in items}

    runs("staging", 1, tested)
    assert found() == {}
    runs("production", 1, deployed)
    assert found() == {"staging": {"production": [deployed]}, "production": {"staging": [tested]}}
    runs("production", 2, tested)
    assert found() == {}
    runs("production", 3, deployed)
    assert agent("POST", "/inventory", body(2, environment="staging")).status_code == 200
    use_cases.refresh(database, seconds=60)
    assert found() == {}, "the other environment runs it no longer"


def test_an_image_that_is_mounted_is_scanned_and_counts(
    agent: Api, api: Api, database: Database, worker: Worker
) -> None:
    own, tool = f"{factories.REPOSITORY}:1", "registry.example.com/shop/tool:2"
    mounts = [{"kind": "image", "target": "/tool", "source": tool}]
    sent = body(1, workloads=workloads("web", image=own, mounts=mounts))
    assert len(agent("POST", "/inventory", sent).json["scans"]) == 2, "its own image and the one that it mounts"
    with database.session() as session:
        policies.put(session, "all", POLICY, "test")
        gate.invalidate(session)
    for _ in range(2):
        claim = worker.claim()
        denied = claim.request.target == tool
        found = factories.report("bad" if denied else "good", packages=[factories.package(1)])
        if denied:
            critical = factories.vulnerability(1, factories.package(1), severity=Severity.CRITICAL)
            found = factories.report("bad", packages=[factories.package(1)], vulnerabilities=[critical])
        worker.finish(found, claim)
    use_cases.refresh(database, seconds=60)
    (row,) = api("GET", "/workloads").json["items"]
    assert (row["overall"], row["verdict"], row["image_verdict"]) == ("deny", "allow", "allow")
    (mounted,) = api("GET", f"/workloads/{row['id']}").json["mounted_images"]
    assert (mounted["image"], mounted["verdict"]) == (tool, "deny")
    with database.session() as session:
        policies.put(session, "all", POLICY.replace("[critical]", "[low]"), "test")
        gate.invalidate(session)
    decisions.refresh(database, catalog.known_names(), catalog.remedies(), seconds=60)
    use_cases.refresh(database, seconds=60)
    assert api("GET", "/workloads").json["items"][0]["overall"] == "allow"


def test_workloads_are_checked_before_they_run_as_the_inventory_would(
    agent: Api, call: Callable[..., Api], database: Database, worker: Worker
) -> None:
    deployed = f"{factories.REPOSITORY}:1@sha256:{'b' * 64}"
    sent = body(1, environment="production", workloads=workloads("web", image=deployed))
    assert agent("POST", "/inventory", sent).status_code == 200
    with database.session() as session:
        scans.request(session, factories.request(f"{factories.REPOSITORY}:1", force=True))
    root = CheckResult("root-user", Failed((Evidence("the image runs as root"),)))
    found = factories.report("found", packages=[factories.package(1)])
    found = replace(found, images=(replace(found.images[0], checks=(*found.images[0].checks, root)),))
    worker.finish(found)

    def kinds(caller: Api, **asked: Any) -> dict[str, str]:
        answer = caller("POST", "/gate/workloads", {"workloads": workloads("web"), **asked})
        assert answer.status_code == 200, answer.text
        (item,) = answer.json["items"]
        return {each["check"]: each["outcome"]["kind"] for each in item["checks"]}

    caller = call("gate")
    asked = kinds(caller, environment="staging")
    assert (asked["digest-differs-elsewhere"], asked["runs-as-root"]) == ("failed", "failed")
    assert kinds(caller)["digest-differs-elsewhere"] == "not-applicable", "no environment to compare others with"
    asked = kinds(call("gate", projects=["elsewhere"]), environment="staging")
    assert (asked["digest-differs-elsewhere"], asked["runs-as-root"]) == ("not-applicable", "incomplete")
    assert caller("POST", "/gate/workloads", {"workloads": [{"name": "a"}]}).status_code == 422
    assert caller("POST", "/gate/workloads", {"workloads": [], "environment": "No!"}).status_code == 422
    assert caller("POST", "/gate/workloads", {"workloads": workloads("a" * 70_000)}).status_code == 422
    large = [{"name": "x" * (1 << 20)}] * 17
    assert caller("POST", "/gate/workloads", {"workloads": large}).status_code == 413
    assert agent("POST", "/gate/workloads", {"workloads": []}).status_code == 403
