"""The same image by Trivy and by a real Clair: where their advisories say the same they agree, and where not both
are shown.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.demo.samples import ADVISORIES
from scanner.engines.base import EngineJob
from scanner.engines.clair import ClairEngine
from scanner.errors import EngineError
from scanner.model import agreement
from scanner.model.finding import EngineReport, Severity
from scanner.model.scan import ScanReport, ScanRequest
from scanner.policy.rules import default_policy
from scanner.reports.base import ReportSubject
from scanner.scanning import pipeline
from scanner.scanning.pipeline import local_services, run
from tests.clair import Clair, advisory, cvss

SEVERITIES = {severity: severity.capitalize() for severity in Severity} | {Severity.UNKNOWN: "Unknown"}


def same_advisories() -> list[dict[str, Any]]:
    """Those that Trivy's database of the samples holds."""
    return [advisory(a.id, a.package, SEVERITIES[a.severity], a.fixed) for a in ADVISORIES]


def scan(settings: Settings, layout: Path, engine: str = "both") -> ScanReport:
    with local_services(settings) as services:
        return run(ScanRequest(f"oci:{layout}", engine=engine), services, lambda progress: None)


@pytest.fixture
def both(clair: Clair, settings: Settings) -> Settings:
    return replace(settings, clair_url=clair.url, clair_psk=Secret(clair.key))


@pytest.mark.real_clock  # Clair would refuse our token, which is of its future
def test_on_the_same_advisories_they_agree(clair: Clair, both: Settings, sample_layouts: Path) -> None:
    clair.load(same_advisories(), [cvss("CVE-2026-90001", 9.8, "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H")])
    image = scan(both, sample_layouts / "shop/vulnerable").images[0]
    assert [e.engine for e in image.engines] == ["trivy", "clair"]
    assert not any(e.incomplete for e in image.engines)
    found = agreement.findings(image.engines)
    assert {f.vulnerability.id for f in found} == {f"CVE-2026-9000{n}" for n in range(1, 5)}
    assert {f.vulnerability.engines for f in found} == {("trivy", "clair")}
    assert [f.dispute for f in found if f.disputed] == []
    ours, theirs = ({c.name: c for c in e.components} for e in image.engines)
    assert ours.keys() == theirs.keys()
    for name, component in ours.items():
        other = theirs[name]
        assert (component.version, component.type, component.layer) == (other.version, other.type, other.layer)
        assert component.purl.partition("?")[0] == other.purl.partition("?")[0]
    assert len(agreement.components(image.engines)) == len(ours)


@pytest.mark.real_clock
def test_where_they_differ_both_are_shown(clair: Clair, both: Settings, sample_layouts: Path) -> None:
    changed = [a for a in same_advisories() if a["name"] != "CVE-2026-90002"]
    changed += [advisory("CVE-2026-90005", "libxml2", "Critical", "2.9.14+dfsg-1.3")]
    for item in changed:
        if item["name"] == "CVE-2026-90001":
            item.update(severity="medium", normalized_severity="Medium")
    clair.load(changed)
    report = scan(both, sample_layouts / "shop/vulnerable")
    disputes = {f.vulnerability.id: f.dispute for f in agreement.findings(report.images[0].engines) if f.disputed}
    assert disputes == {
        "CVE-2026-90001": "trivy reports critical, fixed in 3.0.13-1~deb12u1; clair reports medium, fixed in "
        "3.0.13-1~deb12u1",
        "CVE-2026-90002": "trivy reports high, fixed in 7.88.1-10+deb12u8; clair does not report it",
        "CVE-2026-90005": "trivy does not report it; clair reports critical, fixed in 2.9.14+dfsg-1.3",
    }
    decision = pipeline.decide(report, default_policy(catalog.known_names()))
    shown = catalog.reports()["table"].render(ReportSubject(report, decision, width=200))
    for dispute in disputes.values():
        assert dispute in shown
    assert "the engines disagree on 3" in shown


class Away(ClairEngine):
    """A fault: Clair is away for longer than a scan may take."""

    def scan(self, job: EngineJob) -> EngineReport:
        raise EngineError("cannot reach Clair", reason="clair_unavailable", retryable=True)


def test_one_engine_away_leaves_the_others_evidence(
    settings: Settings, sample_layouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {**catalog.engines(), "clair": Away()}
    monkeypatch.setattr(catalog, "engines", lambda: there)
    image = scan(settings, sample_layouts / "shop/vulnerable").images[0]
    trivy, clair = image.engines
    assert len(trivy.vulnerabilities) == 4
    assert [gap.reason for gap in clair.incomplete] == ["clair_unavailable"]
    with pytest.raises(EngineError, match="cannot reach Clair"):
        scan(settings, sample_layouts / "shop/vulnerable", "clair")


def test_what_only_one_engine_overlooks_is_its_own_gap(
    settings: Settings, sample_layouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that sees fewer packages than the image lists: the other's answer stands."""

    class Blind(ClairEngine):
        def scan(self, job: EngineJob) -> EngineReport:
            full = trivy.scan(job)
            few = replace(full.coverage, packages=1)
            return replace(full, engine="clair", coverage=few, components=full.components[:1], vulnerabilities=())

    trivy, there = catalog.engines()["trivy"], {**catalog.engines(), "clair": Blind()}
    monkeypatch.setattr(catalog, "engines", lambda: there)
    image = scan(settings, sample_layouts / "shop/vulnerable").images[0]
    assert not image.incomplete
    assert [bool(e.incomplete) for e in image.engines] == [False, True]
    assert {gap.reason for gap in image.engines[1].incomplete} == {"package_unread", "nothing_to_scan"}
