"""What a worker remembers of images, on a real registry: an unchanged image is not examined again, a changed one is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from scanner.advisories import database as advisories
from scanner.advisories import trivydb
from scanner.config import Secret, Settings
from scanner.demo import samples
from scanner.model.finding import Failed, Passed
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, Lane, Progress, ScanReport, ScanRequest, Stage
from scanner.store import images, projects, registries, scans
from scanner.store.session import Database
from scanner.worker import server_scan
from tests.databases import migrated_url
from tests.servers import Registry

KEY = Secret("a secret key for tests, long enough")
MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
# What is done only for an image whose result is not remembered.
EXAMINED = {Stage.FETCH, Stage.SCAN, Stage.EXAMINE}


class Server:
    """A database, a registry, and slots of workers that share a home."""

    def __init__(self, settings: Settings, database: Database, registry: Registry) -> None:
        self.settings, self.database, self.registry = settings, database, registry

    def scan(
        self, name: str, *, slot: str = "0", project: str = "default", force: bool = False
    ) -> tuple[ScanReport, int]:
        """Scan an image of the registry as a worker does. Returns the evidence, and how many images were examined."""
        asked = ScanRequest(
            f"{self.registry.host}/{name}",
            lane=Lane.PUSH,
            force=force,
            project=project,
        )
        stages: list[Stage] = []

        def note(progress: Progress) -> None:
            stages.append(progress.stage)

        with self.database.session() as session:
            ticket = scans.request(session, asked)
            held = scans.claim(session, "w", ["push"], 60)
        assert held is not None
        services = server_scan.ServerServices.make(self.settings, self.database, slot, KEY)
        server_scan.run_claim(held, services, note)
        with self.database.read() as session:
            assert scans.invariants(session) == []
            view = scans.get(session, ticket.scan_id)
            assert view.report_id is not None
            assert bool(EXAMINED & set(stages)) is (Stage.SCAN in stages)
            return images.evidence(session, view.report_id), stages.count(Stage.SCAN)


@pytest.fixture
def server(settings: Settings, tmp_path: Path, plain_registry: Registry) -> Iterator[Server]:
    database = Database(migrated_url("sqlite", tmp_path))
    with database.session() as session:
        registries.add(session, plain_registry.host, KEY, insecure=True)
        for name in ("bakery", "dairy"):
            projects.create(session, name, patterns=[f"{plain_registry.host}/{name}/**"])
    yield Server(settings, database, plain_registry)
    database.engine.dispose()


def push(registry: Registry, layouts: Path, sample: str, *names: str) -> None:
    layout = layouts / "shop" / sample
    (listed,) = json.loads((layout / "index.json").read_text())["manifests"]
    for name in names:
        registry.push(f"oci:{layout}:{listed['annotations']['org.opencontainers.image.ref.name']}", name)


def push_index(registry: Registry, repository: str, children: dict[str, str]) -> None:
    """Push an index of images of the repository: their tags by platform, under the tag ``all``."""
    base = f"http://{registry.host}/v2/{repository}/manifests/"
    manifests = []
    for platform, tag in children.items():
        content = httpx.get(base + tag, headers={"Accept": MANIFEST}).content
        system, _, architecture = platform.partition("/")
        manifests.append(
            {
                "mediaType": MANIFEST,
                "digest": Digest.of(content),
                "size": len(content),
                "platform": {"os": system, "architecture": architecture},
            }
        )
    document = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    httpx.put(base + "all", content=document, headers={"Content-Type": INDEX}).raise_for_status()


def about_tag(image: ImageReport) -> object:
    return next(result.outcome for result in image.checks if result.check == "latest-tag")


def without_names(image: ImageReport) -> ImageReport:
    """The evidence without what is about the name: signatures are verified anew for each, and one check looks at it."""
    checks = tuple(result for result in image.checks if result.check != "latest-tag")
    return replace(image, checks=checks, verifications=())


def test_another_project_and_another_slot_get_the_result_with_their_own_names(
    server: Server, sample_layouts: Path
) -> None:
    push(server.registry, sample_layouts, "vulnerable", "remembered/app:1", "bakery/app:latest")
    first, examined = server.scan("remembered/app:1")
    assert examined == 1
    second, examined = server.scan("bakery/app:latest", slot="1", project="bakery")
    assert examined == 0
    assert without_names(second.images[0]) == without_names(first.images[0])
    assert first.images[0].engines[0].vulnerabilities
    assert (second.repository, second.tag) == (f"{server.registry.host}/bakery/app", "latest")
    assert isinstance(about_tag(first.images[0]), Passed)
    found = about_tag(second.images[0])
    assert isinstance(found, Failed), "a check of the reference is done for each reference"
    assert "bakery/app" in found.evidence[0].message
    forced, examined = server.scan("bakery/app:latest", project="bakery", force=True)
    assert examined == 1
    assert forced.images == second.images


def test_of_an_index_only_the_image_that_was_built_again_is_examined(server: Server, sample_layouts: Path) -> None:
    repository = "remembered/index"
    for sample in ("vulnerable", "good", "root-with-secret"):
        push(server.registry, sample_layouts, sample, f"{repository}:{sample}")
    push_index(server.registry, repository, {"linux/amd64": "vulnerable", "linux/arm": "good"})
    former, examined = server.scan(f"{repository}:all")
    assert examined == 2
    push_index(server.registry, repository, {"linux/amd64": "vulnerable", "linux/arm": "root-with-secret"})
    current, examined = server.scan(f"{repository}:all")
    assert examined == 1
    assert without_names(current.images[0]) == without_names(former.images[0])
    assert current.images[0].engines[0].vulnerabilities
    assert current.images[1].image.config.digest != former.images[1].image.config.digest


def test_what_a_result_depends_on_is_never_another(server: Server, sample_layouts: Path, tmp_path: Path) -> None:
    """Changed parameters, feeds and databases: the evidence in the store is not used then, and neither is a result."""
    push(server.registry, sample_layouts, "vulnerable", "remembered/one:1", "remembered/two:1", "bakery/three:1")
    first, _ = server.scan("remembered/one:1")
    settings = server.settings
    server.settings = replace(settings, limits=replace(settings.limits, packages=1))
    limited, examined = server.scan("bakery/three:1", project="bakery")
    assert examined == 1
    assert limited.images[0].engines[0].incomplete, "more packages than this limit"
    server.settings = settings
    known = first.images[0].engines[0].vulnerabilities
    kept = [advisory for advisory in samples.ADVISORIES if advisory.id != known[0].id]
    advisories.import_file(settings, trivydb.build(kept, tmp_path / "other-advisories"))
    other, examined = server.scan("bakery/three:1", project="bakery")
    assert examined == 1
    found = {item.id for item in other.images[0].engines[0].vulnerabilities}
    assert known[0].id not in found
    assert {item.id for item in known} - found == {known[0].id}


def test_results_that_are_no_longer_those_of_the_worker_are_not_believed(server: Server, sample_layouts: Path) -> None:
    """Somebody removes a finding from a result, or brings the results of another installation."""
    push(server.registry, sample_layouts, "vulnerable", "remembered/app:1", "bakery/app:1", "dairy/app:1")
    first, _ = server.scan("remembered/app:1")
    results = server.settings.home / "results"
    (path,) = results.glob("*.sealed")
    name = first.images[0].engines[0].vulnerabilities[0].id.encode()
    assert name in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(name, b"X" * len(name)))
    again, examined = server.scan("bakery/app:1", project="bakery")
    assert examined == 1
    assert without_names(again.images[0]) == without_names(first.images[0])
    (results / "key").write_bytes(bytes(32))
    other, examined = server.scan("dairy/app:1", project="dairy")
    assert examined == 1
    assert without_names(other.images[0]) == without_names(first.images[0])
