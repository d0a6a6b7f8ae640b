"""Who has a package: by name, range and purl; only in images that the asker may see; a page at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.model.finding import CheckResult, Component, Incomplete
from scanner.model.version_ranges import VersionRange
from scanner.services import inventory
from scanner.store import components, images, scans
from scanner.store.components import Search
from scanner.store.schema import running_workload
from scanner.store.session import Database
from tests.actors import ownerless
from tests.scanner.store import factories as make

LOG4J = [
    Component(f"pkg:maven/org.apache.logging.log4j/log4j-core@{version}", "log4j-core", version, "jar")
    for version in ("2.9.1", "2.16.0", "2.17.1")
]
ODD = Component("pkg:generic/log4j-core@odd%20version", "log4j-core", "odd version", "")
IMAGES = {
    "one": ("shop", LOG4J[0]),
    "two": ("shop", LOG4J[1]),
    "three": ("vault", LOG4J[2]),
    "four": ("vault", ODD),
}


@pytest.fixture(autouse=True)
def fleet(database: Database) -> None:
    for name, (project, package) in IMAGES.items():
        repository = f"registry.example.com/{project}/{name}"
        found = make.report(name, repository=repository, packages=[package, make.package(1)])
        with database.session() as session:
            scans.request(session, replace(make.request(f"{repository}:1"), project=project))
            held = scans.claim(session, "w", ["push"], 60)
            assert held
            images.record(session, held, found, make.evidence(found), [make.decided(found)])


def names(database: Database, asked: Search, projects: frozenset[str] | None = None) -> set[str]:
    with database.read() as session:
        found = components.search(session, asked, projects).holders.items
    return {holder.repository.rpartition("/")[2] for holder in found}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Search("LOG4J"), {"one", "two", "three", "four"}),
        (Search("log4j", VersionRange.parse("<2.17.1")), {"one", "two", "four"}),
        (Search("log4j", VersionRange.parse(">=2.10, <2.17")), {"two", "four"}),
        (Search("log4j", exact=True), set()),
        (Search("log4j-core", exact=True), {"one", "two", "three", "four"}),
        (Search("log%core"), set()),
        (Search(purl="pkg:maven/org.apache.logging.log4j/log4j-core"), {"one", "two", "three"}),
        (Search(purl="pkg:maven/org.apache.logging.log4j/log4j-core@2.9.1"), {"one"}),
        (Search(purl="pkg:maven/org.apache.logging.log4j/log4j"), set()),
        (Search("log4j", running=True), set()),
    ],
)
def test_by_name_range_and_purl(database: Database, asked: Search, expected: set[str]) -> None:
    assert names(database, asked) == expected


def test_a_version_that_cannot_be_compared_is_listed_as_such(database: Database) -> None:
    with database.read() as session:
        found = components.search(session, Search("log4j", VersionRange.parse("<2.10")), None).holders.items
    assert {holder.version: holder.comparable for holder in found} == {"2.9.1": True, "odd version": False}


def test_only_images_that_may_be_seen(database: Database) -> None:
    assert names(database, Search("log4j"), frozenset({"shop"})) == {"one", "two"}
    assert names(database, Search("log4j"), frozenset()) == set()


def test_a_page_at_a_time(database: Database) -> None:
    with database.read() as session:
        whole = components.search(session, Search("l"), None).holders
        rows, cursor = [], None
        while True:
            page = components.search(session, Search("l"), None, cursor=cursor, limit=3).holders
            rows += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
    assert tuple(rows) == whole.items
    assert len(rows) == 8
    assert whole.next_cursor is None


def test_only_what_runs_where_it_may_be_seen(database: Database) -> None:
    running = [
        {"name": name, "image": f"registry.example.com/{project}/{name}:1", "source": "kubernetes", "kind": "Pod"}
        for name, project in (("one", "shop"), ("three", "vault"))
    ]
    agent = ownerless("agent", "inventory")
    inventory.report(database, agent, inventory.Snapshot("production", "kubernetes", "cluster", 1, running), "trivy")
    with database.session() as session:
        for name, project in (("one", "shop"), ("three", "vault")):
            mine = running_workload.c.name == name
            values = {"project": project, "digest": str(make.image(name).digest)}
            session.execute(running_workload.update().where(mine).values(**values))
    assert names(database, Search("log4j", running=True)) == {"one", "three"}
    assert names(database, Search("log4j", running=True), frozenset({"shop"})) == {"one"}


def test_an_image_whose_packages_could_not_all_be_read_may_hold_it(database: Database) -> None:
    """A check that could not be examined hides no package: such an image is not one of them."""
    gap = Incomplete("unsupported_os", "the system is not known")
    unknown = CheckResult("healthcheck", gap)
    for name, member in (("five", {"incomplete": (gap,)}), ("six", {"checks": (unknown,)})):
        found = make.report(name, repository=f"registry.example.com/shop/{name}")
        found = replace(found, images=(replace(found.images[0], **member),))  # type: ignore[arg-type]
        with database.session() as session:
            scans.request(session, replace(make.request(f"{found.repository}:1"), project="shop"))
            held = scans.claim(session, "w", ["push"], 60)
            assert held
            images.record(session, held, found, make.evidence(found), [make.decided(found)])
    with database.read() as session:
        assert components.search(session, Search("log4j"), None).incomplete == 1
        assert components.search(session, Search("log4j"), frozenset({"vault"})).incomplete == 0
