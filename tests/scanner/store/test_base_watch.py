"""Watched bases: which images were built on something older, and what a rebuild changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner.model.image import Image
from scanner.model.lineage import BaseImage
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, ScanReport
from scanner.store import base_watch, images, projects, scans
from scanner.store.base_watch import Comparison, Name
from scanner.store.schema import image_base
from scanner.store.session import Database
from tests.databases import BACKENDS, migrated_url
from tests.scanner.store import factories as make

DEBIAN = "registry.example.com/bases/debian"
NAME = Name(DEBIAN, "12", "default")
PACKAGES = [make.package(n) for n in range(8)]


# The queries are tried on both databases; the rules alone on one.
both = pytest.mark.parametrize("backend", BACKENDS, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def database(backend: str, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(backend, tmp_path))
    yield database
    database.engine.dispose()


def report(name: str, repository: str, tag: str, flaws: str, base: str = "", reference: str = "") -> ScanReport:
    """An image with a vulnerability for each digit of ``flaws``, in the package of that number."""
    found = [make.vulnerability(int(n), PACKAGES[int(n)]) for n in flaws]
    made = make.report(name, packages=PACKAGES, vulnerabilities=found, repository=repository, tag=tag)
    below = BaseImage("annotations", reference or f"{DEBIAN}:12", Digest.of(base.encode())) if base else None
    return replace(made, images=(replace(made.images[0], base=below),))


def record(database: Database, found: ScanReport, project: str = "default") -> None:
    with database.session() as session:
        scans.request(session, make.request(found.reference, project=project, force=True))
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        images.record(session, held, found, make.evidence(found), [make.decided(found)])


def answer(database: Database, name: str, *members: str) -> None:
    with database.session() as session:
        one = base_watch.get(session, NAME)
        assert one
        digests = [str(Digest.of(member.encode())) for member in members]
        base_watch.record_answer(session, one, str(Digest.of(name.encode())), digests, 3600)


def watched(database: Database, *seen: str) -> tuple[base_watch.WatchedBase, ...]:
    with database.read() as session:
        return base_watch.list_watched(session, frozenset(seen) if seen else None).items


def fleet(database: Database) -> None:
    """Two images on a base that has the flaws 1 to 4; one of them no longer has 4, and both have one of their own."""
    record(database, report("old", DEBIAN, "12", "1234"))
    record(database, report("a", "registry.example.com/shop/a", "1", "12345", "old"))
    record(database, report("b", "registry.example.com/shop/b", "1", "1236", "old"))
    record(database, report("new", DEBIAN, "12", "347"))
    answer(database, "new")


def test_images_on_an_older_base_are_to_be_rebuilt(database: Database) -> None:
    fleet(database)
    (base,) = watched(database)
    assert (base.state, base.watch.name) == ("newer", NAME)
    assert [one.repository.rpartition("/")[2] for one in base.rebuild] == ["a", "b"]
    answer(database, "old")
    assert watched(database)[0].state == "current"


@both
def test_what_a_rebuild_changes_is_read_from_the_bases_scans(database: Database) -> None:
    fleet(database)
    with database.read() as session:
        one = base_watch.get(session, NAME)
        assert one
        found = base_watch.compare(session, one)
    severities = {n: make.vulnerability(n, PACKAGES[n]).severity.value for n in range(8)}
    assert found == Comparison({severities[2]: 1, severities[1]: 1}, {severities[7]: 1})
    assert sum(found.gone.values()) == 2, "3 and 4 stay, 5 and 6 are the images' own"


def test_a_base_without_a_scan_changes_nothing_known(database: Database) -> None:
    record(database, report("a", "registry.example.com/shop/a", "1", "12", "old"))
    answer(database, "new")
    with database.read() as session:
        one = base_watch.get(session, NAME)
        assert one
        assert not base_watch.compare(session, one).known, "unknown is not: nothing goes, nothing comes"


def test_an_index_and_its_images_are_the_same_base(database: Database) -> None:
    record(database, report("a", "registry.example.com/shop/a", "1", "1", "amd64"))
    answer(database, "index", "amd64", "arm64")
    assert watched(database)[0].state == "current"
    answer(database, "index-2", "amd64-2", "arm64-2")
    assert watched(database)[0].state == "newer"


def test_only_what_a_tag_still_names_is_rebuilt(database: Database) -> None:
    fleet(database)
    record(database, report("a2", "registry.example.com/shop/a", "1", "345", "new"))
    (base,) = watched(database)
    assert [one.repository.rpartition("/")[2] for one in base.rebuild] == ["b"]
    assert len(base.images) == 2


def test_a_base_whose_digest_nobody_declared_is_unknown(database: Database) -> None:
    found = report("a", "registry.example.com/shop/a", "1", "1", "old")
    base = BaseImage("history", f"{DEBIAN}:12")
    record(database, replace(found, images=(replace(found.images[0], base=base),)))
    answer(database, "new")
    assert watched(database)[0].state == "unknown"


@pytest.mark.parametrize("reference", ["registry.example.com/bases/debian", "not a reference", "x:1" + "y" * 700])
def test_a_base_without_a_usable_tag_is_not_watched(database: Database, reference: str) -> None:
    found = report("a", "registry.example.com/shop/a", "1", "1", "old")
    base = BaseImage("labels", reference, Digest.of(b"old"))
    record(database, replace(found, images=(replace(found.images[0], base=base),)))
    names = {item.watch.name.reference for item in watched(database)}
    assert names <= {"registry.example.com/bases/debian:latest"}


def test_a_project_sees_its_own_images_only(database: Database) -> None:
    record(database, report("a", "registry.example.com/shop/a", "1", "1", "old"))
    assert watched(database, "default")
    assert watched(database, "other") == ()


def test_a_tag_that_no_current_image_names_is_forgotten(database: Database) -> None:
    record(database, report("a", "registry.example.com/shop/a", "1", "1", "old"))
    record(database, report("a2", "registry.example.com/shop/a", "1", "1", "x", "registry.example.com/bases/alpine:3"))
    with database.session() as session:
        base_watch.tidy(session)
    assert [item.watch.name.tag for item in watched(database)] == ["3"]


@both
def test_images_that_move_to_another_project_take_the_watch_along(database: Database) -> None:
    record(database, report("a", "registry.example.com/shop/a", "1", "1", "old"))
    with database.session() as session:
        projects.create(session, "shop", patterns=["registry.example.com/shop/*"])
        base_watch.tidy(session)
    assert [item.watch.name.project for item in watched(database)] == ["shop"]


def test_a_rescan_replaces_the_base_and_a_listing_takes_it_along(database: Database) -> None:
    first = report("a", "registry.example.com/shop/a", "1", "1", "old")
    record(database, first)
    record(database, replace(first, images=(ImageReport(_image(first), first.images[0].engines),)))
    with database.read() as session:
        assert session.execute(sa.select(image_base)).all() == []


def _image(found: ScanReport) -> Image:
    return found.images[0].image


@both
def test_a_moved_tag_is_asked_for_soon(database: Database) -> None:
    record(database, report("old", DEBIAN, "12", "1"))
    record(database, report("a", "registry.example.com/shop/a", "1", "1", "old"))
    answer(database, "old")
    with database.session() as session:
        one = base_watch.get(session, NAME)
        assert one
        base_watch.record_comparison(session, one, None)
        assert not base_watch.is_due(session)
    record(database, report("new", DEBIAN, "12", ""))
    with database.read() as session:
        assert [one.name for one in base_watch.to_ask(session, 10)] == [NAME]


@both
def test_pages_of_bases_are_complete(database: Database) -> None:
    for n in range(5):
        record(database, report(f"a{n}", f"registry.example.com/shop/a{n}", "1", "1", "old", f"{DEBIAN}:{n}"))
    seen, cursor = [], None
    while True:
        with database.read() as session:
            page = base_watch.list_watched(session, None, cursor=cursor, limit=2)
        seen += [item.watch.name.tag for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ["0", "1", "2", "3", "4"]
