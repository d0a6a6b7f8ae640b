"""A scan that is narrowed to a platform, from a real registry's index to the gate's verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from scanner.config import Secret, Settings
from scanner.errors import NotFoundError
from scanner.model.reference import Digest, Platform
from scanner.model.scan import Lane, ScanRequest
from scanner.store import gate, images, listings, registries, scans, tags
from scanner.store.session import Database
from scanner.worker import server_scan
from tests.databases import migrated_url
from tests.scanner.registry.test_attached import pushed
from tests.servers import Registry

KEY = Secret("a secret key for tests, long enough")
MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
CHILDREN = (("vulnerable", "linux/amd64", ""), ("good", "linux/arm", "v7"))


@pytest.fixture
def server(settings: Settings, tmp_path: Path, plain_registry: Registry) -> Iterator[server_scan.ServerServices]:
    database = Database(migrated_url("sqlite", tmp_path))
    with database.session() as session:
        registries.add(session, plain_registry.host, KEY, insecure=True)
    yield server_scan.ServerServices.make(settings, database, "0", KEY)
    database.engine.dispose()


@pytest.fixture
def index(plain_registry: Registry, sample_layouts: Path) -> tuple[str, Digest, dict[str, Digest]]:
    """An index of a vulnerable and a good image: its reference by tag, its digest, the children's digests by
    platform.
    """
    base = f"http://{plain_registry.host}/v2/platforms/app/manifests/"
    manifests, digests = [], {}
    for name, platform, variant in CHILDREN:
        layout = sample_layouts / "shop" / name
        tag = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"][
            "org.opencontainers.image.ref.name"
        ]
        plain_registry.push(f"oci:{layout}:{tag}", f"platforms/app:{name}")
        answer = httpx.get(base + name, headers={"Accept": MANIFEST})
        system, _, architecture = platform.partition("/")
        digest = Digest.of(answer.content)
        fields = {"os": system, "architecture": architecture} | ({"variant": variant} if variant else {})
        manifests.append({"mediaType": MANIFEST, "digest": digest, "size": len(answer.content), "platform": fields})
        digests[platform] = digest
    document = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    httpx.put(base + "1", content=document, headers={"Content-Type": INDEX}).raise_for_status()
    return f"{plain_registry.host}/platforms/app:1", Digest.of(document), digests


def scan(server: server_scan.ServerServices, target: str, platform: str = "") -> scans.ScanView:
    asked = ScanRequest(target, Platform.parse(platform) if platform else None, lane=Lane.PUSH)
    with server.database.session() as session:
        ticket = scans.request(session, asked)
        held = scans.claim(session, "w", ["push"], 60)
    assert held is not None
    server_scan.run_claim(held, server, lambda progress: None)
    with server.database.read() as session:
        assert scans.invariants(session) == []
        return scans.get(session, ticket.scan_id)


def verdict(server: server_scan.ServerServices, target: str, digest: Digest) -> str | None:
    with server.database.read() as session:
        row = gate.current_decision(session, digest, "", target.rpartition(":")[0], None)
    return json.loads(row.document)["verdict"] if row else None


def test_a_scan_of_one_platform_is_about_that_image_alone(
    server: server_scan.ServerServices, index: tuple[str, Digest, dict[str, Digest]]
) -> None:
    target, digest, children = index
    arm = scan(server, target, "linux/arm")
    assert arm.digest == children["linux/arm"]
    assert verdict(server, target, digest) is None, "one platform says nothing about the index"
    with server.database.read() as session:
        (listed,) = listings.list_images(session, None).items
        assert (listed.digest, listed.tag) == (arm.digest, ""), "the tag names the index"
        assert tags.history(session, None).items == ()
    whole = scan(server, target)
    assert whole.digest == digest
    assert verdict(server, target, digest) == "deny"
    scan(server, target, "linux/arm")
    assert verdict(server, target, digest) == "deny"
    with server.database.read() as session:
        found = listings.newest_report(session, digest, None)[1]
        assert len(found.images) == 2


def test_a_platform_that_the_index_lacks_is_refused(
    server: server_scan.ServerServices, index: tuple[str, Digest, dict[str, Digest]]
) -> None:

    for platform in ("linux/arm/v6", "linux/s390x"):
        with pytest.raises(NotFoundError) as refused:
            scan(server, index[0], platform)
        assert "linux/arm/v7" in refused.value.hint
        with server.database.session() as session:  # the raised error left it to its lease
            for view in scans.list_scans(session, None).items:
                scans.cancel(session, view.id)


def test_a_child_asked_for_by_digest_has_a_verdict_of_its_own(
    server: server_scan.ServerServices, index: tuple[str, Digest, dict[str, Digest]]
) -> None:
    target, digest, children = index
    name = target.rpartition(":")[0]
    scan(server, target, "linux/arm/v7")
    again = scan(server, f"{name}@{children['linux/arm']}")
    with server.database.read() as session:
        reports = {view.report_id for view in scans.list_scans(session, None).items}
    assert again.digest == children["linux/arm"]
    assert len(reports) == 1, "the same evidence, not made twice"
    assert verdict(server, target, digest) is None


def test_evidence_is_used_again_for_another_tag_but_not_what_it_says_of_the_tag(
    server: server_scan.ServerServices, plain_registry: Registry, sample_layouts: Path
) -> None:
    """The image had been scanned by its version. By the name latest it passed the check of that very name."""
    layout = sample_layouts / "shop" / "good"
    outcomes = []
    for tag in ("1", "latest", "2"):
        plain_registry.push(f"oci:{layout}", f"platforms/named:{tag}")
        done = scan(server, f"{plain_registry.host}/platforms/named:{tag}")
        with server.database.read() as session:
            assert done.report_id is not None
            found = images.evidence(session, done.report_id)
        outcomes += [result.outcome.kind for result in found.images[0].checks if result.check == "latest-tag"]
    assert outcomes == ["passed", "failed", "passed"]


def test_an_sbom_that_is_attached_later_is_read(
    server: server_scan.ServerServices, plain_registry: Registry, sample_layouts: Path
) -> None:
    settings = replace(server.services.settings, attached_sboms=True)
    server = server_scan.ServerServices.make(settings, server.database, "0", KEY)
    target = f"{plain_registry.host}/platforms/sboms:1"
    counts = []
    for sboms in ([], [("application/vnd.cyclonedx+json", b'{"bomFormat": "CycloneDX", "specVersion": "1.6"}')]):
        pushed(plain_registry, sample_layouts, "shop/good", "platforms/sboms", sboms)
        done = scan(server, target)
        with server.database.read() as session:
            assert done.report_id is not None
            counts.append(len(images.evidence(session, done.report_id).images[0].attached))
    assert counts == [0, 1]
