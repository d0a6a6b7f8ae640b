"""Evidence and decisions as the pipeline would make them, small or as large as a real image's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from scanner.model.decision import Decision, Verdict
from scanner.model.finding import AdvisoryStatus, Component, Coverage, EngineReport, Severity, Vulnerability
from scanner.model.image import Image, ImageConfig, Layer
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.model.scan import ImageReport, Lane, ScanReport, ScanRequest
from scanner.store.images import DecisionRecord

# Evidence is as old as the run: policies judge the age of advisories by the real clock, so that a fixed date would
# expire.
NOW = datetime.now(UTC).replace(microsecond=0)
REPOSITORY = "registry.example.com/shop/cart"
ADVISORIES = AdvisoryStatus("trivy-db", "2", updated_at=NOW, digest=Digest.of(b"advisories"))
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def request(target: str = f"{REPOSITORY}:1", *, lane: Lane = Lane.PUSH, **more: object) -> ScanRequest:
    return replace(ScanRequest(target, lane=lane, requested_by="ci", source="api"), **more)  # type: ignore[arg-type]


def image(name: str = "image") -> Image:
    diff_id = Digest.of(name.encode() + b"layer")
    config = ImageConfig(Digest.of(name.encode() + b"config"), Platform("linux", "amd64"), (diff_id,), created=NOW)
    layer = Layer(0, Digest.of(name.encode() + b"blob"), diff_id, _LAYER, 1000)
    return Image(Descriptor(_MANIFEST, Digest.of(name.encode()), 500), config, (layer,))


def package(number: int) -> Component:
    return Component(f"pkg:deb/debian/lib{number}@1.{number}", f"lib{number}", f"1.{number}", "debian")


def vulnerability(number: int, of: Component, **more: object) -> Vulnerability:
    made = Vulnerability(
        f"CVE-2026-{number:05}",
        of.purl,
        of.name,
        of.version,
        fixed_versions=("2.0",) if number % 2 else (),
        severity=list(Severity)[number % 6],
        title=f"flaw {number}",
        description="words " * 60,
        url="https://example.com/advisory",
    )
    return replace(made, **more)  # type: ignore[arg-type]


def report(
    name: str = "image",
    *,
    packages: Sequence[Component] = (),
    vulnerabilities: Sequence[Vulnerability] = (),
    repository: str = REPOSITORY,
    tag: str = "1",
    engine: str = "trivy",
) -> ScanReport:
    picture = image(name)
    answer = EngineReport(
        engine,
        "0.76.0",
        None,
        ADVISORIES,
        Coverage("debian", "12", True, len(packages)),
        tuple(packages),
        tuple(vulnerabilities),
    )
    return ScanReport(
        f"{repository}:{tag}", repository, tag, picture.manifest, (ImageReport(picture, (answer,)),), NOW, NOW, "0.1.0"
    )


def large_report(name: str = "large", *, packages: int = 300, findings: int = 450, order: int = 1) -> ScanReport:
    """As many findings as a usual application image has. ``order`` -1: the same, told the other way round."""
    components = [package(n) for n in range(packages)]
    found = [vulnerability(n, components[n % packages]) for n in range(findings)]
    return report(name, packages=components[::order], vulnerabilities=found[::order])


def evidence(found: ScanReport) -> Digest:
    return Digest.of(repr(found).encode())


def decided(found: ScanReport, verdict: Verdict = Verdict.ALLOW, environment: str = "") -> DecisionRecord:
    decision = Decision(
        verdict, (), "default", 1, Digest.of(b"policy"), found.digest, evidence(found), NOW, environment=environment
    )
    return DecisionRecord(decision, f'{{"verdict":"{verdict}","digest":"{found.digest}"}}')
