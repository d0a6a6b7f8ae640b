"""Known images below others: found by their layers, within what a project may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from scanner.model.image import HistoryEntry, Image, Layer
from scanner.model.lineage import BASE_DIGEST, BASE_NAME, BaseImage
from scanner.model.reference import Descriptor, Digest
from scanner.model.scan import ImageReport, ScanReport
from scanner.store import bases, images, scans
from scanner.store.session import Database
from tests.databases import BACKENDS, empty_url
from tests.scanner.store import factories as make

DEBIAN = "registry.example.com/bases/debian"


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[Database]:
    database = Database(empty_url(request.param, tmp_path))  # type: ignore[arg-type]
    database.upgrade()
    yield database
    database.engine.dispose()


def image(name: str, *layers: str) -> Image:
    """An image of layers that are known by their names."""
    made = make.image(name)
    diff_ids = tuple(Digest.of(layer.encode()) for layer in layers)
    stack = tuple(
        Layer(n, Digest.of(b"x" + d.encode()), d, made.layers[0].media_type, 1000) for n, d in enumerate(diff_ids)
    )
    history = tuple(HistoryEntry(f"COPY {layer} /", layer=n) for n, layer in enumerate(layers))
    return replace(made, config=replace(made.config, diff_ids=diff_ids, history=history), layers=stack)


def report(made: Image, repository: str, tag: str, subject: Descriptor | None = None) -> ScanReport:
    found = make.report(repository=repository, tag=tag)
    return replace(found, subject=subject or made.manifest, images=(ImageReport(made, found.images[0].engines),))


def record(database: Database, found: ScanReport, project: str = "default") -> None:
    with database.session() as session:
        scans.request(session, make.request(found.reference, project=project, force=True))
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        images.record(session, held, found, make.evidence(found), [make.decided(found)])


def find(database: Database, made: Image, *seen: str) -> BaseImage | None:
    with database.read() as session:
        return bases.find(session, made, frozenset(seen) if seen else None)


def test_the_nearest_of_several(database: Database) -> None:
    record(database, report(image("debian", "a"), DEBIAN, "12"))
    record(database, report(image("python", "a", "b"), "registry.example.com/bases/python", "3.11"))
    record(database, report(image("other", "x"), "registry.example.com/bases/other", "1"))
    found = find(database, image("app", "a", "b", "c"))
    assert found is not None
    assert (found.reference, found.layers, found.history, found.proven) == (
        "registry.example.com/bases/python:3.11",
        2,
        2,
        True,
    )
    assert found.digest == Digest.of(b"python")
    assert found.outdated is False


def test_an_image_is_not_its_own_base_nor_are_other_stacks(database: Database) -> None:
    record(database, report(image("app", "a", "b"), make.REPOSITORY, "1"))
    assert find(database, image("app", "a", "b")) is None
    assert find(database, image("twin", "a", "b")) is None
    assert find(database, image("odd", "b", "a", "c")) is None
    assert find(database, image("empty")) is None


def test_a_tag_that_moved(database: Database) -> None:
    record(database, report(image("debian", "a"), DEBIAN, "12"))
    record(database, report(image("debian-new", "a2"), DEBIAN, "12"))
    found = find(database, image("app", "a", "b"))
    assert found is not None
    assert found.outdated
    assert found.newest == Digest.of(b"debian-new")


def test_an_index_is_known_by_its_images(database: Database) -> None:
    index = Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(b"index"), 100)
    record(database, report(image("debian", "a"), DEBIAN, "12", index))
    found = find(database, image("app", "a", "b"))
    assert found is not None
    assert (found.digest, found.outdated) == (index.digest, False)
    # A builder notes the digest of the platform's own image, a tag names the index: that is the same base.
    said = replace(image("other", "z"), annotations=((BASE_NAME, f"{DEBIAN}:12"), (BASE_DIGEST, Digest.of(b"debian"))))
    contradicted = find(database, said)
    assert contradicted is not None
    assert "its layers are not those of" in contradicted.note


def test_what_is_declared_where_nothing_is_known(database: Database) -> None:
    said = replace(
        image("app", "a", "b"), annotations=((BASE_NAME, f"{DEBIAN}:12"), (BASE_DIGEST, Digest.of(b"elsewhere")))
    )
    assert find(database, said) == BaseImage("annotations", f"{DEBIAN}:12", Digest.of(b"elsewhere"))
    record(database, report(image("debian", "x"), DEBIAN, "12"))
    found = find(database, said)
    assert found is not None
    assert (found.proven, found.outdated) == (False, True)


def test_the_declared_name_decides_between_equals(database: Database) -> None:
    record(database, report(image("debian", "a"), DEBIAN, "12"))
    record(database, report(image("debian", "a"), DEBIAN, "latest"))
    record(database, report(image("debian", "a"), DEBIAN, "stable"))
    found = find(database, replace(image("app", "a", "b"), annotations=((BASE_NAME, f"{DEBIAN}:12"),)))
    assert found is not None
    assert found.reference == f"{DEBIAN}:12"
    unnamed = find(database, image("app", "a", "b"))
    assert unnamed is not None
    assert unnamed.reference in (f"{DEBIAN}:12", f"{DEBIAN}:stable")


def test_another_projects_base_is_not_there(database: Database) -> None:
    record(database, report(image("debian", "a"), DEBIAN, "12"), "default")
    assert find(database, image("app", "a", "b"), "default") is not None
    assert find(database, image("app", "a", "b"), "elsewhere") is None


def test_what_a_scan_asked_a_registry_counts_where_it_is_newer(database: Database) -> None:
    record(database, report(image("debian", "a"), DEBIAN, "12"))
    app = image("app", "a", "b")
    known = find(database, app)
    assert known is not None
    assert known.newest_at is not None
    asked = replace(known, newest=Digest.of(b"asked"), newest_at=None)
    with database.read() as session:
        later = bases.of(session, ImageReport(app, base=asked), known.newest_at + timedelta(hours=1), None)
        earlier = bases.of(session, ImageReport(app, base=asked), known.newest_at - timedelta(hours=1), None)
        unknown = bases.of(session, ImageReport(image("lone", "q"), base=asked), known.newest_at, None)
    assert later is not None and later.newest == Digest.of(b"asked")
    assert earlier is not None and earlier.outdated is False
    assert unknown == asked


def test_a_declared_base_without_a_tag_has_no_newest(database: Database) -> None:
    record(database, report(image("debian", "x"), DEBIAN, "12"))
    for name in (DEBIAN, "not a name"):
        said = replace(image("app", "a", "b"), annotations=((BASE_NAME, name), (BASE_DIGEST, Digest.of(b"elsewhere"))))
        found = find(database, said)
        assert found is None or found.newest is None, name


def test_an_image_without_layers_is_nobodys_base(database: Database) -> None:
    record(database, report(image("scratch"), "registry.example.com/bases/scratch", "1"))
    assert find(database, image("app", "a")) is None
