"""Somebody's bill of materials: read within bounds from a real registry, marked as theirs, and never instead of our own look."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from scanner import catalog, pipeline
from scanner.config import Limits, Settings
from scanner.errors import ImageError
from scanner.model import agreement
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, ScanRequest
from scanner.pipeline import local_services, run
from scanner.policy.rules import default_policy
from scanner.registry.attached import parse_bill
from scanner.reports.base import ReportSubject
from scanner.reports.cyclonedx import CycloneDxReport
from scanner.reports.spdx import SpdxReport
from tests.scanner.reports.subjects import every, ordinary
from tests.servers import Registry

CYCLONEDX, SPDX = "application/vnd.cyclonedx+json", "application/spdx+json"
MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
OURS = {
    "type": "library",
    "name": "libc6",
    "version": "2.36-9+deb12u9",
    "purl": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9",
}
THEIRS = {
    "type": "library",
    "name": "vendored",
    "version": "1.0",
    "purl": "pkg:generic/vendored@1.0",
    "licenses": [{"license": {"id": "MIT"}}],
}
BILL = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "components": [OURS, {**THEIRS, "components": [{**THEIRS, "name": "inner"}]}],
}


def attach(registry: Registry, repository: str, subject: dict[str, Any], bills: list[tuple[str, bytes]]) -> None:
    """As a client does where the registry has no referrers API: artifacts, and an index under the tag ``sha256-<hex>``."""
    base = f"http://{registry.host}/v2/{repository}"
    with httpx.Client(trust_env=False, timeout=30) as client:

        def put(data: bytes) -> dict[str, Any]:
            digest = str(Digest.of(data))
            place = client.post(f"{base}/blobs/uploads/").headers["Location"]
            client.put(f"{place}&digest={digest}", content=data).raise_for_status()
            return {"digest": digest, "size": len(data)}

        empty = {"mediaType": "application/vnd.oci.empty.v1+json", **put(b"{}")}
        listed = []
        for kind, data in bills:
            manifest = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "artifactType": kind,
                    "config": empty,
                    "layers": [{"mediaType": kind, **put(data)}],
                    "subject": subject,
                }
            ).encode()
            digest = str(Digest.of(manifest))
            headers = {"Content-Type": MANIFEST}
            client.put(f"{base}/manifests/{digest}", content=manifest, headers=headers).raise_for_status()
            listed.append({"mediaType": MANIFEST, "artifactType": kind, "digest": digest, "size": len(manifest)})
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
        tag = subject["digest"].replace(":", "-")
        client.put(f"{base}/manifests/{tag}", content=index, headers={"Content-Type": INDEX}).raise_for_status()


def scan(settings: Settings, target: str) -> ImageReport:
    with local_services(settings) as services:
        return run(ScanRequest(target), services, lambda progress: None).images[0]


def pushed(registry: Registry, sample_layouts: Path, name: str, repository: str, bills: list[tuple[str, bytes]]) -> str:
    registry.push(f"oci:{sample_layouts / name}", f"{repository}:1")
    answer = httpx.get(
        f"http://{registry.host}/v2/{repository}/manifests/1", headers={"Accept": MANIFEST}, trust_env=False
    )
    subject = {"mediaType": MANIFEST, "digest": str(Digest.of(answer.content)), "size": len(answer.content)}
    attach(registry, repository, subject, bills)
    return f"{registry.host}/{repository}:1"


def test_what_is_attached_is_read_and_marked(
    plain_registry: Registry, settings: Settings, sample_layouts: Path
) -> None:
    bills = [
        (CYCLONEDX, json.dumps(BILL).encode()),
        (SPDX, b"not even JSON"),
        ("application/vnd.in-toto+json", b"{}"),
    ]
    target = pushed(plain_registry, sample_layouts, "shop/good", "bills/good", bills)
    settings = replace(settings, insecure_registries=(plain_registry.host,))
    assert scan(settings, target).attached == (), "nobody asked for it"
    image = scan(replace(settings, attached_sboms=True), target)
    theirs, broken = image.attached
    assert (theirs.format, [c.name for c in theirs.components]) == ("cyclonedx", ["libc6", "vendored", "inner"])
    assert [c.name for c in agreement.unseen(theirs, image.engines)] == ["vendored", "inner"]
    assert theirs.components[1].licenses == ("MIT",)
    assert (broken.format, broken.components) == ("spdx", ())
    assert "not JSON" in broken.problem
    assert "vendored" not in {c.name for e in image.engines for c in e.components}


def test_a_bill_never_stands_in_for_our_own_look(
    plain_registry: Registry, settings: Settings, sample_layouts: Path
) -> None:
    target = pushed(
        plain_registry, sample_layouts, "shop/mystery", "bills/mystery", [(CYCLONEDX, json.dumps(BILL).encode())]
    )
    own = replace(settings, insecure_registries=(plain_registry.host,), attached_sboms=True)
    with local_services(own) as services:
        report = run(ScanRequest(target), services, lambda progress: None)
    assert len(report.images[0].attached[0].components) == 3
    decision = pipeline.decide(report, default_policy(catalog.known()))
    assert decision.undecided
    shown = catalog.reports()["table"].render(ReportSubject(report, decision, width=200))
    assert "3 components, 3 of them not found by us" in shown


def test_our_own_bills_are_read_back() -> None:
    found = ordinary()
    expected = {(c.purl, c.name, c.version) for c in found.images[0].engines[0].components}
    for kind, form in (("cyclonedx", CycloneDxReport()), ("spdx", SpdxReport())):
        data = form.render(ReportSubject(found)).encode()
        assert {(c.purl, c.name, c.version) for c in parse_bill(data, kind, Limits())} == expected


@pytest.mark.parametrize("name", list(every()))
def test_whatever_we_write_can_be_read(name: str) -> None:
    for kind, form in (("cyclonedx", CycloneDxReport()), ("spdx", SpdxReport())):
        parse_bill(form.render(ReportSubject(every()[name])).encode(), kind, Limits())


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("cyclonedx", b""),
        ("cyclonedx", b"[]"),
        ("cyclonedx", b"{}"),
        ("spdx", json.dumps(BILL).encode()),
        ("cyclonedx", json.dumps({**BILL, "components": {}}).encode()),
        ("cyclonedx", json.dumps({**BILL, "components": ["x"]}).encode()),
        (
            "cyclonedx",
            b'{"bomFormat":"CycloneDX","components":' + b'[{"components":' * 500 + b"[]" + b"}]" * 500 + b"}",
        ),
        ("spdx", b'{"spdxVersion":"SPDX-2.3","packages":[[]]}'),
        ("spdx", b'{"spdxVersion":"SPDX-3.0","packages":[]}'),
    ],
)
def test_what_is_no_bill_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(ImageError):
        parse_bill(data, kind, Limits())


def test_a_bill_without_bounds_is_refused() -> None:
    many = {**BILL, "components": [{**THEIRS, "name": f"n{number}"} for number in range(50_001)]}
    with pytest.raises(ImageError, match="more than 50000"):
        parse_bill(json.dumps(many).encode(), "cyclonedx", Limits())
