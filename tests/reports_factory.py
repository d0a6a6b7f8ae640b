"""Evidence for tests of policies, reports and stores: a report of one image with what matters to a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from scanner import catalog
from scanner.model.finding import (
    AdvisoryStatus,
    CheckResult,
    Component,
    Coverage,
    EngineReport,
    Evidence,
    Failed,
    Incomplete,
    Outcome,
    Passed,
    Severity,
    Verification,
    Vulnerability,
)
from scanner.model.image import Image, ImageConfig, Layer
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.model.scan import ImageReport, ScanReport

# Evidence is as old as the run: policies judge the age of advisories by the real clock, so that a fixed date would
# expire.
NOW = datetime.now(UTC).replace(microsecond=0)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def vulnerability(
    name: str = "CVE-2026-1",
    package: str = "openssl",
    severity: str = "critical",
    fixed: str | None = "2.0",
    **more: Any,
) -> Vulnerability:
    purl = f"pkg:deb/debian/{package}@1.0"
    return Vulnerability(
        name, purl, package, "1.0", (fixed,) if fixed else (), Severity(severity), engines=("trivy",), **more
    )


def engine(
    vulnerabilities: Sequence[Vulnerability] = (),
    *,
    incomplete: Sequence[Incomplete] = (),
    updated_at: datetime | None = NOW,
    packages: int = 10,
) -> EngineReport:
    components = tuple(
        {v.purl: Component(v.purl, v.package, v.installed_version, "debian") for v in vulnerabilities}.values()
    )
    status = AdvisoryStatus("trivy-db", "2", updated_at, updated_at, None, Digest.of(b"db"))
    return EngineReport(
        "trivy",
        "0.76.0",
        Digest.of(b"trivy"),
        status,
        Coverage("debian", "12", True, packages),
        components,
        tuple(vulnerabilities),
        (),
        tuple(incomplete),
    )


def failed(message: str = "found") -> Failed:
    return Failed((Evidence(message),))


def image_report(
    engines: Sequence[EngineReport],
    checks: Mapping[str, Outcome] | None = None,
    verifications: Sequence[Verification] = (),
    incomplete: Sequence[Incomplete] = (),
    seed: str = "1",
) -> ImageReport:
    layer = Layer(
        0,
        Digest.of(b"layer"),
        Digest.of(b"diff"),
        MANIFEST.replace("manifest.v1+json", "layer.v1.tar"),
        1_000_000,
        3_000_000,
        "ADD rootfs /",
    )
    config = ImageConfig(Digest.of(seed.encode()), Platform("linux", "amd64"), (layer.diff_id,), user="10001")
    image = Image(Descriptor(MANIFEST, Digest.of(b"manifest" + seed.encode()), 500), config, (layer,))
    results = tuple(CheckResult(name, outcome, Severity.HIGH) for name, outcome in (checks or {}).items())
    return ImageReport(image, tuple(engines), results, tuple(verifications), tuple(incomplete))


def report(*images: ImageReport, repository: str = "registry.example.com/shop/app", tag: str = "1.0") -> ScanReport:
    subject = (
        images[0].image.manifest
        if len(images) == 1
        else Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(b"index"), 900)
    )
    return ScanReport(f"{repository}:{tag}", repository, tag, subject, images, NOW, NOW, "0.1.0")


def simple(*vulnerabilities: Vulnerability, checks: Mapping[str, Outcome] | None = None, **more: Any) -> ScanReport:
    """One image, one engine, every check passed unless said otherwise."""
    outcomes: dict[str, Outcome] = {name: Passed() for name in catalog.image_checks()}
    return report(image_report([engine(vulnerabilities, **more)], {**outcomes, **(checks or {})}))
