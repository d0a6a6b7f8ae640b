"""The inventory: snapshots replace their source as a whole, and what did not change is left alone."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from scanner import catalog
from scanner.errors import ConflictError, RefusedError, UsageError
from scanner.model.decision import Verdict
from scanner.model.reference import Descriptor, Digest
from scanner.policy.evaluate import evidence_digest
from scanner.services import decisions, inventory, policies, workload_documents
from scanner.store import audit, components, images, listings, retention, scans
from scanner.store import inventory as store
from scanner.store.schema import audit_log, inventory_source, running_mount, running_workload
from scanner.store.session import Database, moment
from tests.actors import ownerless, person
from tests.scanner.store import factories
from tests.scanner.workloads import sins

AGENT = ownerless("agent", "inventory")
ADMIN = person("ada")


def documents(text: str = sins.KUBERNETES_BAD, source: str = "kubernetes") -> list[dict[str, Any]]:
    return inventory.parse(source, [("web.yaml", text)])


def named(*names: str, image: str = f"{factories.REPOSITORY}:1", **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "image": image, "source": "kubernetes", "kind": "Pod", **more} for name in names]


def snapshot(found: list[dict[str, Any]], generation: int = 1, **more: Any) -> inventory.Snapshot:
    made = inventory.Snapshot("production", "kubernetes", "cluster", generation, found)
    return replace(made, **more)


def report(
    database: Database, found: list[dict[str, Any]], generation: int = 1, **more: Any
) -> inventory.SnapshotResult:
    return inventory.report(database, AGENT, snapshot(found, generation, **more), "trivy")


def rows(database: Database, **narrowed: Any) -> dict[str, store.WorkloadRow]:
    with database.read() as session:
        return {row.name: row for row in store.list_workloads(session, None, store.Filter(**narrowed)).items}


def scanned(database: Database, found: Any = None) -> str:
    """Evidence about the image, as a worker records it."""
    found = found or factories.report(packages=[factories.package(1)])
    with database.session() as session:
        scans.request(session, factories.request(f"{found.repository}:{found.tag}", force=True))
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        made = decisions.decide_all(session, found, catalog.known_names(), catalog.remedies())
        images.record(session, held, found, evidence_digest(found), made)
    return str(found.digest)


def test_a_snapshot_replaces_what_its_source_reported_and_nothing_else(database: Database) -> None:
    report(database, named("a", "b"))
    report(database, named("x"), source="kubernetes", name="other cluster")
    before = rows(database)
    done = report(database, named("b", "c"), 2)
    assert (done.added, done.changed, done.removed, done.unchanged) == (1, 0, 1, 1)
    after = rows(database)
    assert set(after) == {"b", "c", "x"}
    assert after["b"] == replace(before["b"], reported_at=after["b"].reported_at)
    assert done.source.workloads == 2


def test_an_empty_snapshot_says_that_nothing_runs(database: Database) -> None:
    report(database, named("a", "b"))
    assert report(database, [], 2).removed == 2
    assert rows(database) == {}


@pytest.mark.parametrize("generation", [4, 5])
def test_out_of_order_snapshots_are_refused_and_change_nothing(database: Database, generation: int) -> None:
    report(database, named("a"), 5)
    with pytest.raises(ConflictError) as refused:
        report(database, named("b"), generation)
    assert refused.value.reason == "out_of_order"
    # Two agents that report one source, or a clock that was ahead: the person must learn who was first, and when.
    assert re.search(r"was reported already, by \S.* at \d{4}-\d\d-\d\d \d\d:\d\d UTC", str(refused.value))
    assert "--name" in refused.value.hint
    assert set(rows(database)) == {"a"}


def test_another_agent_is_refused_while_the_first_one_watches(database: Database) -> None:
    """Both clocks agree, so that generations alone would let each remove what the other one reported."""
    first, second = {"agent": "a docker", "every_seconds": 60}, {"agent": "b docker", "every_seconds": 60}
    report(database, named("a"), 1, **first)
    for generation in (2, 3):
        with pytest.raises(ConflictError) as refused:
            report(database, named("b"), generation, **second)
        assert refused.value.reason == "another_agent"
        assert re.search("a docker, with token agent, .* from b docker", str(refused.value))
        assert "--name" in refused.value.hint
    assert set(rows(database)) == {"a"}
    source = report(database, named("a"), 4, **first).source
    assert (source.agent, source.contested, source.refused_agent) == ("a docker", True, "b docker, with token agent")
    with database.session() as session:
        entries = audit.list_entries(session, audit.Filter(action="inventory.refuse")).items
        session.execute(inventory_source.update().values(reported_at=moment(session) - timedelta(seconds=200)))
    assert len(entries) == 1
    taken = report(database, named("b"), 5, **second).source  # the first one has stopped
    assert (taken.agent, taken.contested, set(rows(database))) == ("b docker", False, {"b"})


def test_single_reports_of_agents_that_take_turns_are_refused(database: Database) -> None:
    """Those of a CronJob, whose pods have a new name each time, are not."""
    for generation, pod in enumerate(("a", "b", "c", "c"), 1):
        report(database, named(pod), generation, agent=pod)
    with pytest.raises(ConflictError) as refused:
        report(database, named("a"), 9, agent="a")
    assert refused.value.reason == "another_agent"
    with database.session() as session:
        session.execute(inventory_source.update().values(reported_at=moment(session) - timedelta(minutes=16)))
    assert report(database, named("a"), 10, agent="a").source.agents == ["b", "c", "a"]


def test_the_same_snapshot_again_is_no_error(database: Database) -> None:
    report(database, named("a"), 5)
    assert report(database, named("a"), 5).unchanged == 1


def test_only_what_changed_is_written_and_checked(database: Database) -> None:
    found = named("a", "b", "c")
    report(database, found)
    with database.session() as session:  # so that a second check would be seen
        session.execute(running_workload.update().values(results=b"untouched"))
    report(database, [*found[:2], {**found[2], "privileged": True}], 2)
    with database.read() as session:
        kept = dict(session.execute(sa.select(running_workload.c.name, running_workload.c.results)).all())
    assert kept["a"] == kept["b"] == b"untouched"
    assert kept["c"] != b"untouched"


def test_an_unchanged_snapshot_leaves_no_entry_in_the_audit_log(database: Database) -> None:
    for generation in range(3):
        report(database, named("a"), generation)
    with database.read() as session:
        entries = session.execute(sa.select(audit_log.c.action, audit_log.c.detail)).all()
    assert [entry.action for entry in entries] == ["inventory.report"]
    assert entries[0].detail["added"] == 1


def test_values_of_variables_are_never_kept(database: Database) -> None:
    canary = "canary-of-a-value"
    raw = named("a", environment=[{"name": "DB_PASSWORD", "value": canary}, {"name": "LEVEL", "value": canary}])
    report(database, [*documents(sins.KUBERNETES_BAD.replace("not-a-real-one", canary)), *raw])
    with database.read() as session:
        for row in session.execute(sa.select(*running_workload.c)):
            assert canary not in repr(tuple(row))
            assert "secrets-in-environment" in row.failed, "whether it was a secret is still known"


def test_a_workload_keeps_its_lines(database: Database) -> None:
    report(database, documents())
    with database.read() as session:
        row = next(iter(store.list_workloads(session, None).items))
        found = inventory.detail(session, ADMIN, row.uid)
    lines = {r.check: r.outcome.evidence[0].line for r in found.results if r.outcome.kind == "failed"}
    line = sins.KUBERNETES_BAD.splitlines().index("            privileged: true") + 1
    assert lines["privileged-container"] == line


def test_an_image_that_nobody_scanned_is_not_known_and_is_queued_once(database: Database) -> None:
    digest = "sha256:" + "ab" * 32
    done = report(database, named("a", "b", image=f"{factories.REPOSITORY}:1@{digest}"))
    assert len(done.tickets) == 1
    assert rows(database)["a"].image_verdict == store.IMAGE_UNKNOWN
    with database.read() as session:
        asked = scans.get(session, done.tickets[0].scan_id)
    assert (asked.request.lane, asked.request.target) == ("push", f"{factories.REPOSITORY}:1@{digest}")
    assert report(database, named("a", "c", image=f"{factories.REPOSITORY}:1@{digest}"), 2).tickets == ()


def test_new_evidence_judges_what_runs_anew(database: Database) -> None:
    found = factories.report(packages=[factories.package(1)])
    report(database, named("pinned", image=f"{factories.REPOSITORY}@{found.digest}") + named("by tag"))
    assert {row.image_verdict for row in rows(database).values()} == {""}
    scanned(database, found)
    assert inventory.refresh(database, seconds=5) == 2
    after = rows(database)
    assert all(row.image_verdict for row in after.values())
    assert {name: row.by_tag for name, row in after.items()} == {"pinned": False, "by tag": True}
    assert {row.digest for row in after.values()} == {str(found.digest)}
    assert inventory.refresh(database, seconds=5) == 0


def test_a_changed_policy_decides_what_runs_anew(database: Database) -> None:
    report(database, named("a", "b", privileged=True))
    assert rows(database)["a"].verdict is Verdict.DENY
    text = """
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: lenient, description: nothing about privileges}
match: {images: ["**"], environments: [production]}
rules:
  - id: host-network
    check: host-network
    action: warn
"""
    with database.session() as session:
        policies.write(session, ADMIN, "lenient", text, if_version=None)
    assert inventory.refresh(database, seconds=5) == 2
    assert {row.verdict for row in rows(database).values()} == {Verdict.ALLOW}


def test_policies_are_those_of_the_environment(database: Database) -> None:
    text = """
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: tests, description: anything goes in tests}
match: {images: ["**"], environments: [test]}
rules:
  - id: host-network
    check: host-network
    action: warn
"""
    with database.session() as session:
        policies.write(session, ADMIN, "tests", text, if_version=None)
    report(database, named("a", privileged=True))
    report(database, named("a", privileged=True), environment="test")
    verdicts = {e: rows(database, environment=e)["a"].verdict for e in ("production", "test")}
    assert verdicts == {"production": Verdict.DENY, "test": Verdict.ALLOW}


def test_lists_are_worst_first_narrowed_and_paged(database: Database) -> None:
    scanned(database)
    fine = [{**each, "labels": [["team", "shop"]], "namespace": "shop"} for each in named(*"abcd")]
    report(database, [*fine, *named("worst", privileged=True)])
    with database.read() as session:
        first = store.list_workloads(session, None, limit=2)
        rest = store.list_workloads(session, None, cursor=first.next_cursor, limit=10)
        facets = store.facets(session, None)
    assert first.items[0].name == "worst"
    assert len({row.uid for row in (*first.items, *rest.items)}) == 5
    assert set(rows(database, owner="shop")) == set("abcd")
    assert set(rows(database, check="privileged-container")) == {"worst"}
    assert set(rows(database, verdicts=("deny",), search="WORST")) == {"worst"}
    assert facets["owner"] == {"shop": 4}
    assert facets["namespace"] == {"shop": 4}
    assert facets["environment"] == {"production": 5}
    assert facets["check"]["privileged-container"] == 1
    assert facets["image"] == {factories.REPOSITORY: 5}


def test_another_projects_workloads_are_not_there(database: Database) -> None:
    report(database, named("a"))
    with database.read() as session:
        assert store.list_workloads(session, frozenset({"elsewhere"})).items == ()
        assert store.facets(session, frozenset({"elsewhere"}))["environment"].get("production", 0) == 0
    with pytest.raises(RefusedError):
        inventory.report(database, replace(AGENT, projects=frozenset({"shop"})), snapshot(named("a")), "trivy")


def test_workloads_of_one_name_are_all_kept(database: Database) -> None:
    report(database, named("a", "a", "a"))
    assert set(rows(database)) == {"a", "a (2)", "a (3)"}


@pytest.mark.parametrize(
    "found",
    [
        [{"image": "x"}],
        [{"name": "a"}],
        [{"name": "a", "image": "x", "source": "compose"}],
        [{"name": "a", "image": "x", "source": "kubernetes", "surprise": 1}],
        [{"name": "a", "image": "x", "source": "kubernetes", "privileged": "yes"}],
        [{"name": "a", "image": "x", "source": "kubernetes", "origin": {}}],
        [{"name": "a", "image": "x", "source": "kubernetes", "places": {"user": {"line": "one"}}}],
        [{"name": "a", "image": "x", "source": "kubernetes", "labels": [["k", "v" * (64 << 10)]]}],
    ],
)
def test_what_is_no_workload_is_refused_as_a_whole(database: Database, found: list[dict[str, Any]]) -> None:
    with pytest.raises(UsageError):
        report(database, [*named("good"), *found])
    assert rows(database) == {}


@pytest.mark.parametrize(
    "wrong", [{"environment": "Not One"}, {"source": "none"}, {"name": ""}, {"generation": -1}, {"generation": 1 << 60}]
)
def test_a_snapshot_says_where_it_is_from(database: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        report(database, named("a"), **wrong)


def test_a_vulnerability_names_what_runs_with_it(database: Database) -> None:
    flaw = factories.package(1)
    found = factories.report(packages=[flaw], vulnerabilities=[factories.vulnerability(1, flaw)])
    digest = scanned(database, found)
    report(database, named("a", "b", image=f"{factories.REPOSITORY}@{digest}"))
    with database.read() as session:
        running, by_environment, total = store.affected_workloads(session, "CVE-2026-00001", None)
        where = store.running_in(session, [digest], None)
    assert {row.name for row in running} == {"a", "b"}
    assert (by_environment, total) == ({"production": 1}, 1)
    assert where == {digest: {"production": 2}}


def test_a_document_survives_the_way_to_the_server() -> None:
    for source, text in (("kubernetes", sins.KUBERNETES_BAD), ("compose", sins.COMPOSE_BAD)):
        for read in catalog.workload_sources()[source].parse(text, "file"):
            data = workload_documents.encode(workload_documents.document(read))
            back = workload_documents.workload(data)
            told = [replace(v, value="", withheld="") for v in read.environment]
            assert replace(back, environment=()) == replace(read, environment=())
            assert [replace(v, withheld="") for v in back.environment] == told


def test_an_index_is_affected_where_one_of_its_platforms_is(database: Database) -> None:
    """What runs and what is listed is the index; what was scanned are its platforms."""
    flaw = factories.package(1)
    found = factories.report(packages=[flaw], vulnerabilities=[factories.vulnerability(1, flaw)])
    index = Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(b"an index"), 100)
    scanned(database, replace(found, subject=index))
    report(database, named("a", image=f"{factories.REPOSITORY}@{index.digest}"))
    with database.read() as session:
        _, images_affected = listings.affected_images(session, "CVE-2026-00001", None)
        running, environments, total = store.affected_workloads(session, "CVE-2026-00001", None)
        listed = listings.list_images(session, None, listings.Filter(running_in="production"))
    assert [each.digest for each in images_affected] == [str(index.digest)]
    assert ([each.name for each in running], environments, total) == (["a"], {"production": 1}, 1)
    assert [each.digest for each in listed.items] == [str(index.digest)]


def test_other_environments_and_affected_workloads_are_of_the_projects_that_may_be_seen(database: Database) -> None:
    flaw = factories.package(1)
    scanned(database, factories.report(packages=[flaw], vulnerabilities=[factories.vulnerability(1, flaw)]))
    other = "sha256:" + "0" * 64
    report(database, named("a"))
    report(database, named("b", running_digest=f"{factories.REPOSITORY}@{other}"), environment="staging")
    own, nobodys = frozenset({"default"}), frozenset({"bank"})
    with database.read() as session:
        row = next(row for row in store.list_workloads(session, None).items if row.name == "a")
        row = replace(row, digest="sha256:" + "1" * 64)
        assert store.other_digests(session, row, own) == {"staging": (other,)}
        assert store.other_digests(session, row, nobodys) == {}
        seen = store.affected_workloads(session, "CVE-2026-00001", own)
        hidden = store.affected_workloads(session, "CVE-2026-00001", nobodys)
    assert seen[2] == 1
    assert hidden == ((), {}, 0)


def mounting(digest: str) -> list[dict[str, Any]]:
    """Workloads that run other images: one mounts the image, a sidecar of the next pod runs it, one does neither."""
    mounts = [{"kind": "image", "target": "/tool", "source": f"{factories.REPOSITORY}@{digest}"}]
    sidecar = {"container_kind": "sidecar", "image": f"{factories.REPOSITORY}@{digest}"}
    return [
        *named("mounts", image="h/own:1", mounts=mounts * 2),
        *named("sidecar", **sidecar),
        *named("another", image="h/own:1"),
    ]


def test_an_image_that_is_mounted_counts_as_one_that_runs(database: Database) -> None:
    flaw = factories.package(1)
    found = factories.report(packages=[flaw], vulnerabilities=[factories.vulnerability(1, flaw)])
    digest = scanned(database, found)
    report(database, mounting(digest))
    search = components.Search(flaw.name, running=True)
    with database.read() as session:
        running, by_environment, total = store.affected_workloads(session, "CVE-2026-00001", None)
        where = store.running_in(session, [digest], None)
        listed = listings.list_images(session, None, listings.Filter(running_in="production"))
        (holder,) = components.search(session, search, None).holders.items
        kept = session.execute(sa.union(*retention.IN_USE)).scalars().all()
        facets = store.facets(session, None)
        assert store.affected_workloads(session, "CVE-2026-00001", frozenset({"another"}))[:2] == ((), {})
        assert components.search(session, search, frozenset({"another"})).holders.items == ()
    assert {row.name for row in running} == {"mounts", "sidecar"}
    assert (by_environment, total) == ({"production": 1}, 1)
    assert where == {digest: {"production": 2}}
    assert [each.digest for each in listed.items] == [digest]
    assert (holder.digest, holder.environments) == (digest, ("production",))
    assert digest in kept
    assert facets["image"] == {factories.REPOSITORY: 2, "docker.io/h/own": 2}
    for narrowed in ({"digest": digest}, {"image": factories.REPOSITORY}):
        assert rows(database, **narrowed).keys() == {"mounts", "sidecar"}


def test_a_mount_that_is_gone_counts_no_more(database: Database) -> None:
    digest = scanned(database)
    report(database, mounting(digest))
    report(database, named("mounts", "another", image="h/own:1"), 2)
    assert rows(database, digest=digest) == {}
    report(database, mounting(digest), 3)
    with database.session() as session:
        source = store.source_of(session, "production", "kubernetes", "cluster")
        assert source is not None
        store.remove_source(session, source.id)
        assert session.execute(sa.select(running_mount)).all() == []


def test_a_mounted_tag_counts_for_the_image_that_it_names_since(database: Database) -> None:
    mounts = [{"kind": "image", "target": "/tool", "source": f"{factories.REPOSITORY}:1"}]
    report(database, named("mounts", image="h/own:1", mounts=mounts))
    digest = scanned(database)
    assert rows(database, digest=digest) == {}
    assert inventory.refresh(database, seconds=60) == 1
    assert rows(database, digest=digest).keys() == {"mounts"}
