"""Harbor's findings: one for each failed check, refused signatures, and scores that Harbor can sort by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from scanner.model.finding import CVSS, CheckResult, Evidence, Failed, Passed, Severity, TrustStatus, Verification
from scanner.model.reference import Digest, Reference
from scanner.services.harbor_reports import HarborReport, vulnerabilities
from tests.scanner.store import factories as make

PACKAGE = make.package(1)


def test_a_check_is_one_finding_and_only_a_refused_signature_is_one() -> None:
    (image,) = make.report().images
    failed = CheckResult("root-user", Failed((Evidence("the image runs as root"),)), Severity.HIGH)
    passed = CheckResult("secrets", Passed(), Severity.HIGH)
    signed = [
        Verification("cosign", status, Digest.of(b"image"), "reason", f"signed by {status}")
        for status in (TrustStatus.VERIFIED, TrustStatus.REFUSED)
    ]
    platforms = tuple(replace(image, checks=(failed, passed), verifications=tuple(signed)) for _ in range(2))
    document = rendered(replace(make.report(), images=platforms))
    assert [item["id"] for item in document["vulnerabilities"]] == ["DW-root-user", "DW-signature-cosign"]
    assert document["vulnerabilities"][1]["description"].count("signed by") == 1
    assert "tag" not in document["artifact"]


def test_scores_are_by_source_and_version() -> None:
    scores = (
        CVSS("3.1", "CVSS:3.1/AV:N", 9.8, "nvd"),
        CVSS("2.0", "AV:N", 7.5, "nvd"),
        CVSS("", "", 5.0, "vendor"),
    )
    flaw = make.vulnerability(1, PACKAGE, cvss=scores)
    (item,) = rendered(make.report(packages=[PACKAGE], vulnerabilities=[flaw]))["vulnerabilities"]
    found = item["vendor_attributes"]["CVSS"]
    assert set(found) == {"nvd"}, "a score of an unknown version is not comparable"
    assert (found["nvd"]["V3Score"], found["nvd"]["V2Score"]) == (9.8, 7.5)


def rendered(found: Any) -> dict[str, Any]:
    reference = Reference.parse(f"{make.REPOSITORY}@{found.digest}")
    report = HarborReport(reference, found, make.decided(found).decision, findings=True)
    document: dict[str, Any] = orjson.loads(vulnerabilities(report, version="1.1"))
    return document
