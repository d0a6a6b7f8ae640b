"""What Trivy says of packages without an image is what it says of an image that has them: everything but where they
lie.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scanner import catalog
from scanner.advisories import database, trivydb
from scanner.advisories.trivydb import Advisory
from scanner.config import Settings
from scanner.demo import samples
from scanner.engines.base import MatchJob
from scanner.errors import AdvisoriesUnavailable, EngineError
from scanner.model.finding import EngineReport, Severity
from scanner.model.matching import Package, by_package, fingerprint, package_of, rebuilt
from scanner.model.scan import ScanRequest
from scanner.scanning import pipeline

METADATA = b"Metadata-Version: 2.1\nName: requests\nVersion: 2.0.0\n"
LANGUAGES = {
    "usr/lib/python3/site-packages/requests-2.0.0.dist-info/METADATA": METADATA,
    "opt/lib/python3/site-packages/requests-2.0.0.dist-info/METADATA": METADATA,  # the same package twice
    "app/node_modules/lodash/package.json": b'{"name": "lodash", "version": "4.17.0"}',
}
ALPINE = {
    "etc/alpine-release": b"3.20.1\n",
    "etc/os-release": b"ID=alpine\nVERSION_ID=3.20.1\n",
    "lib/apk/db/installed": b"P:musl\nV:1.2.5-r0\nA:x86_64\no:musl\n\n"
    b"P:libcrypto3\nV:3.3.0-r2\nA:x86_64\no:openssl\n\n",
}
ADVISORIES = (
    *samples.ADVISORIES,
    Advisory("CVE-2026-4", "debian 8", "bash", Severity.LOW, "of a release past its end of life"),
    Advisory("CVE-2026-1", "alpine 3.20", "openssl", Severity.HIGH, "of the source package", fixed="3.3.1-r0"),
    Advisory("CVE-2026-2", "pip::GitHub Security Advisory Pip", "requests", Severity.HIGH, "x", "2.1", ("<2.1",)),
    Advisory("CVE-2026-3", "npm::GitHub Security Advisory Npm", "lodash", Severity.LOW, "x", "4.18.0", ("<4.18.0",)),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    database.import_file(made, trivydb.build(ADVISORIES, tmp_path / "advisories"))
    return made


def scan(settings: Settings, base: Path, files: dict[str, bytes], below: samples.Sample | None = None) -> EngineReport:
    steps = (*(below.steps if below else ()), samples.Step("COPY . /", dict(files)))
    sample = samples.Sample("test/image:1", "", steps, samples.SAMPLES[1].config)
    samples.build_layout(sample, base / "image")
    with pipeline.local_services(settings) as services:
        found = pipeline.run(ScanRequest(f"oci:{base / 'image'}"), services, lambda progress: None)
    return found.images[0].engines[0]


def look_up(settings: Settings, base: Path, packages: list[Package], release: str) -> dict[str, tuple[object, ...]]:
    work = base / f"work-{release or 'languages'}".replace(" ", "-")
    work.mkdir()
    job = MatchJob(packages, release, work, base / "cache", settings, 60)
    return dict(catalog.engines()["trivy"].look_up(job).found)


@pytest.mark.parametrize("name", ["debian", "alpine"])
def test_the_same_as_of_an_image(settings: Settings, tmp_path: Path, name: str) -> None:
    report = (
        scan(settings, tmp_path, LANGUAGES, samples.SAMPLES[1])
        if name == "debian"
        else scan(settings, tmp_path, {**ALPINE, **LANGUAGES})
    )
    packages = by_package(report)
    found: dict[str, tuple[object, ...]] = {}
    for release in {p.os for p in packages}:
        found |= look_up(settings, tmp_path, [p for p in packages if p.os == release], release)
    assert found.keys() == {p.key for p in packages}
    assert set(rebuilt(report, found)) == set(report.vulnerabilities)  # type: ignore[arg-type]
    assert {v.id for v in report.vulnerabilities} >= {"CVE-2026-2", "CVE-2026-3"}
    assert all(fingerprint(items) == fingerprint(found[p.key]) for p, items in packages.items())  # type: ignore[arg-type]
    # One package at two places is one question, and an answer at each of them.
    assert sum(v.id == "CVE-2026-2" for v in report.vulnerabilities) == 2


def test_packages_that_trivy_would_take_for_one(settings: Settings, tmp_path: Path) -> None:
    """The same name and version built from other sources: forged package databases, and honest rebuilds."""
    report = scan(settings, tmp_path, LANGUAGES, samples.SAMPLES[1])
    curl = next(package_of(report, c) for c in report.components if c.name == "curl")
    other = replace(curl, source_name="libxml2", source_version="2.9.14+dfsg-1.2")
    found = look_up(settings, tmp_path, [curl, other], curl.os)
    assert [v.id for v in found[curl.key]] == ["CVE-2026-90002"]  # type: ignore[attr-defined]
    assert [v.id for v in found[other.key]] == ["CVE-2026-90003"]  # type: ignore[attr-defined]


def test_what_only_the_image_can_tell_is_not_answered(settings: Settings, tmp_path: Path) -> None:
    package = Package("trivy", "redhat 9.4", "redhat", "pkg:rpm/redhat/bash@5.1", "bash", "5.1", "bash", "5.1")
    assert look_up(settings, tmp_path, [package], package.os) == {}
    unknown = Package("trivy", "", "a-type-of-tomorrow", "pkg:tomorrow/x@1", "x", "1")
    assert unknown.key not in look_up(settings, tmp_path, [unknown], "")


def test_an_end_of_life_is_told(settings: Settings, tmp_path: Path) -> None:
    package = Package(
        "trivy", "debian 8.0", "debian", "pkg:deb/debian/bash@4.3?distro=debian-8.0", "bash", "4.3", "bash", "4.3"
    )
    job = MatchJob([package], package.os, tmp_path / "w", tmp_path / "cache", settings, 60)
    job.work.mkdir()
    assert catalog.engines()["trivy"].look_up(job).os_supported is False


def test_without_a_database_nothing_is_answered(tmp_path: Path) -> None:
    job = MatchJob([], "", tmp_path / "w", tmp_path / "cache", Settings(home=tmp_path / "empty"), 60)
    job.work.mkdir()
    with pytest.raises(AdvisoriesUnavailable):
        catalog.engines()["trivy"].look_up(job)


def test_an_engine_that_cannot_says_so(settings: Settings, tmp_path: Path) -> None:
    clair = catalog.engines()["clair"]
    assert not clair.looks_up
    with pytest.raises(EngineError) as refused:
        clair.look_up(MatchJob([], "", tmp_path, tmp_path, settings, 1))
    assert refused.value.reason == "cannot_match"
