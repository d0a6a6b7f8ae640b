"""Reports to render: an ordinary one, one whose every text is hostile, and those that a report format forgets."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from scanner import catalog
from scanner.model.decision import Decision
from scanner.model.finding import CVSS, Component, Coverage, EngineReport, Failed, Incomplete, NotApplicable, Passed
from scanner.model.reference import Digest
from scanner.model.scan import ScanReport
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.rules import default_policy
from tests.reports_factory import NOW, engine, failed, image_report, report, simple, vulnerability

HOSTILE = '=HYPERLINK("http://x","<script>alert(1)</script>")&\x1b[31m\u202e\x00\n"\'`,;|@-+\tÄ😀'
DIFF = Digest.of(b"diff")


def with_components(found: EngineReport, *more: Component) -> EngineReport:
    return replace(found, components=(*found.components, *more), coverage=Coverage("debian", "12", True, 10))


def ordinary() -> ScanReport:
    """Two vulnerabilities, one with everything that can be said of it; licences; a component of a language."""
    full = vulnerability(
        "CVE-2026-1",
        aliases=("GHSA-x", "GHSA-x"),
        cvss=(
            CVSS("3.1", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8, "nvd"),
            CVSS("2.0", "", 7.5),
            CVSS("9", "", 1.0),
        ),
        cwes=("CWE-79", "CWE-79", "CWE-x"),
        title="title",
        description="description",
        url="https://example.com/1",
        references=("https://example.com/1", "https://example.com/1"),
        published=NOW - timedelta(days=9),
        modified=NOW,
        layer=DIFF,
        known_exploited=True,
        epss=0.5,
        severity_source="nvd",
    )
    waits = vulnerability("CVE-2026-2", "bash", "low", fixed=None, status="will_not_fix")
    watched = vulnerability("CVE-2026-3", "bash", "unknown", fixed=None, status="under_investigation")
    found = with_components(
        engine([full, waits, watched]),
        Component(
            "pkg:pypi/flask@3.0",
            "flask",
            "3.0",
            "python-pkg",
            licenses=("MIT", "See LICENCE"),
            layer=DIFF,
            path="srv/app",
        ),
        Component("pkg:deb/debian/libc6@2", "libc6", "2", "debian", "glibc", "2.36", ("GPL-2.0-only", "GPL-2.0-only")),
    )
    checks = {"root-user": failed("user is root"), "healthcheck": Passed(), "latest-tag": NotApplicable("an archive")}
    return report(
        image_report([found], {**checks, "setuid-files": Incomplete("malformed_image", "a layer could not be read")})
    )


def hostile() -> ScanReport:
    """Text from an image as an attacker would write it, wherever an image's text can stand."""
    item = vulnerability(
        HOSTILE,
        HOSTILE,
        fixed=HOSTILE,
        title=HOSTILE,
        description=HOSTILE * 50,
        aliases=(HOSTILE,),
        path=HOSTILE,
        severity_source=HOSTILE,
    )
    item = replace(item, purl=f"pkg:generic/{HOSTILE}", installed_version=HOSTILE)
    component = Component(item.purl, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, (HOSTILE,), None, HOSTILE)
    found = replace(with_components(engine([item], incomplete=[Incomplete("x", HOSTILE)])), components=(component,))
    image = image_report([found], {"root-user": failed(HOSTILE), "healthcheck": Incomplete("x", HOSTILE)})
    outcome = image.checks[0].outcome
    assert isinstance(outcome, Failed)
    evidence = replace(outcome.evidence[0], path=HOSTILE, instruction=HOSTILE)
    checks = (
        replace(image.checks[0], outcome=replace(outcome, evidence=(evidence,), remedy=HOSTILE)),
        *image.checks[1:],
    )
    image = replace(image, checks=checks, incomplete=(Incomplete("unsafe_archive", HOSTILE),))
    return replace(report(image), reference=f"archive:{HOSTILE}", repository="", tag="")


def index() -> ScanReport:
    """Two platforms, which share a vulnerability."""
    return report(
        image_report([engine([vulnerability()])], seed="1"), image_report([engine([vulnerability()])], seed="2")
    )


def two_engines() -> ScanReport:
    """Trivy and Clair, who differ."""
    theirs = replace(engine([vulnerability(severity="low"), vulnerability("CVE-2026-9")]), engine="clair", version="v4")
    return report(image_report([engine([vulnerability()]), theirs]))


def every() -> dict[str, ScanReport]:
    return {
        "ordinary": ordinary(),
        "hostile": hostile(),
        "index": index(),
        "two engines": two_engines(),
        "nothing found": simple(),
        "no engine": report(image_report([])),
        "no image": replace(simple(), images=()),
    }


def decided(found: ScanReport) -> Decision:
    return evaluate(found, default_policy(catalog.known_names()), Context(NOW, remedies=catalog.remedies()))
