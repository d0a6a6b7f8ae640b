"""A fleet of images in a store, as scans would have left it, without an image: what an engine says of each package
is asked of the engine.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from scanner import catalog
from scanner.advisories import feeds
from scanner.config import Settings
from scanner.engines.base import MatchJob
from scanner.model.finding import AdvisoryStatus, Component, Coverage, EngineReport, Passed, Vulnerability
from scanner.model.finding import CheckResult as Result
from scanner.model.matching import package_of, rebuilt
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, Lane, ScanReport, ScanRequest
from scanner.policy.evaluate import evidence_digest
from scanner.services import decisions
from scanner.store import images, scans
from scanner.store.session import Database
from tests.scanner.store import factories


@dataclass(frozen=True)
class Answers:
    """What the engine said of every package, and on what that rests."""

    version: str
    binary: Digest | None
    advisories: AdvisoryStatus
    found: Mapping[str, tuple[Vulnerability, ...]]


def debian(name: str, version: str = "1.0-1") -> Component:
    """A package as the engine names it in a Debian image."""
    purl = f"pkg:deb/debian/{name}@{version}?arch=amd64&distro=debian-12.8"
    return Component(purl, name, version, "debian", source_name=name, source_version=version)


def python(name: str, version: str = "1.0") -> Component:
    return Component(f"pkg:pypi/{name}@{version}", name, version, "python-pkg", path=f"app/{name}.dist-info/METADATA")


def look_up(settings: Settings, components: Sequence[Component], work: Path) -> Answers:
    """Ask the engine, as it is and with the advisories in force."""
    engine = catalog.engines()["trivy"]
    bare = _report("", Answers("", None, AdvisoryStatus(""), {}), components)
    packages = {p.key: p for p in (package_of(bare, c) for c in components)}
    found: dict[str, tuple[Vulnerability, ...]] = {}
    answer = None
    for release in sorted({p.os for p in packages.values()}):
        place = work / f"asked-{random.getrandbits(40)}"
        place.mkdir(parents=True)
        mine = [p for p in packages.values() if p.os == release]
        answer = engine.look_up(MatchJob(mine, release, place, work / "cache", settings, 120))
        found.update(answer.found)
    assert answer is not None
    assert found.keys() == packages.keys()
    return Answers(answer.version, answer.binary, answer.advisories, found)


def _report(name: str, answers: Answers, components: Sequence[Component]) -> EngineReport:
    coverage = Coverage("debian", "12.8", True, len(components))
    report = EngineReport("trivy", answers.version, answers.binary, answers.advisories, coverage, tuple(components))
    return replace(report, vulnerabilities=rebuilt(report, answers.found)) if answers.found else report


def evidence(
    name: str, components: Sequence[Component], answers: Answers, settings: Settings, host: str = "registry.example.com"
) -> ScanReport:
    """What a scan of an image with these components would have found."""
    picture = factories.image(name)
    layer = picture.layers[0].diff_id
    report = _report(name, answers, [replace(c, layer=layer) for c in components])
    checks = tuple(Result(check, Passed()) for check in catalog.image_checks())
    image = ImageReport(picture, (feeds.annotate(settings, report),), checks)
    now = datetime.now(UTC)
    return ScanReport(f"{host}/{name}:1", f"{host}/{name}", "1", picture.manifest, (image,), now, now, "0.1.0")


def record(database: Database, found: ScanReport) -> None:
    """As the worker that scanned it does."""
    asked = ScanRequest(found.reference, lane=Lane.PUSH, requested_by="test", source="test")
    with database.session() as session:
        ticket = scans.request(session, asked)
        claim = scans.claim(session, "test", ["push"], 60, scan_id=ticket.scan_id)
        assert claim is not None
        known, remedies = catalog.known_names(), catalog.remedies()
        made = decisions.decide_all(session, found, known, remedies)
        images.record(
            session,
            claim,
            found,
            evidence_digest(found),
            made,
            decisions.epss_thresholds(decisions.enabled_policies(session, known)),
        )
