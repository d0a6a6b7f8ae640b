"""Reports as Harbor reads them: vulnerabilities 1.0 and 1.1, raw, SBOM (pluggable scanner specification 1.2).

https://github.com/goharbor/pluggable-scanner-spec. Harbor has findings of one kind, vulnerabilities, and refuses an
image by their severity. What is unknown is therefore a finding, ``DW-undecided`` or ``DW-incomplete``, so that an
image that could not be examined never has an empty report. With ``findings``, the denial (``DW-denied``), failed checks
(``DW-<check>``) and refused signatures (``DW-signature-<scheme>``) are findings as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from scanner import __version__, catalog
from scanner.model.decision import Decision, Reason, ReasonKind, Verdict
from scanner.model.finding import CVSS, Failed, Severity, TrustStatus, Vulnerability
from scanner.model.reference import Reference
from scanner.model.scan import ScanReport
from scanner.model.untrusted import clean_text
from scanner.reports.base import Gap, ReportSubject, gaps

SCANNER: Mapping[str, str] = {"name": "Dockwarden", "vendor": "Dockwarden", "version": __version__}
PREFIX = "DW-"
SBOM_FORMATS: Mapping[str, str] = {"application/spdx+json": "spdx", "application/vnd.cyclonedx+json": "cyclonedx"}
_SEVERITIES: Mapping[Severity, str] = {
    Severity.NONE: "Negligible",
    Severity.LOW: "Low",
    Severity.MEDIUM: "Medium",
    Severity.HIGH: "High",
    Severity.CRITICAL: "Critical",
    Severity.UNKNOWN: "Unknown",
}
_ORDER = ("Unknown", "Negligible", "Low", "Medium", "High", "Critical")  # as Harbor compares them
# Characters of a description, links of a finding, and reasons in one text.
_DESCRIPTION, _LINKS, _LISTED = 4000, 20, 50


@dataclass(frozen=True)
class HarborReport:
    """What a report is made of. ``let_through``: a person lets the digest through, so that nothing of ours blocks it.

    ``findings``: our own findings beside vulnerabilities and gaps are included. ``link``: the image's page, or empty.
    """

    reference: Reference
    found: ScanReport
    decision: Decision
    findings: bool = False
    let_through: bool = False
    link: str = ""

    @property
    def undecided(self) -> bool:
        """Whether the image is denied because something is unknown."""
        fails = self.decision.undecided or any(gap.fails for gap in gaps(self.subject))
        return fails and not self.let_through

    @property
    def denied(self) -> bool:
        """Whether the image is denied for what is known."""
        return self.decision.verdict is Verdict.DENY and not self.decision.undecided and not self.let_through

    @property
    def blocks(self) -> bool:
        """Whether one of our own findings makes Harbor refuse the image."""
        return self.undecided or (self.findings and self.denied)

    @property
    def denying(self) -> list[Reason]:
        """The reasons of a denial."""
        kinds = (ReasonKind.VIOLATION, ReasonKind.INCOMPLETE)
        return [r for r in self.decision.reasons if r.action is Verdict.DENY and r.kind in kinds]

    @property
    def subject(self) -> ReportSubject:
        return ReportSubject(self.found, self.decision)


def vulnerabilities(report: HarborReport, *, version: str) -> bytes:
    """Render the report on vulnerabilities. 1.0 has neither CVSS nor CWE nor attributes of its findings."""
    items = [*_own_findings(report), *_items(report)]
    if version == "1.0":
        extra = ("preferred_cvss", "cwe_ids", "vendor_attributes")
        items = [{name: value for name, value in item.items() if name not in extra} for item in items]
    worst = max((item["severity"] for item in items), key=_ORDER.index, default="Unknown")
    document = _head(report) | {"severity": worst, "vulnerabilities": items}
    if version != "1.0":
        document["vendor_attributes"] = _attributes(report)
    return orjson.dumps(document)


def raw(report: HarborReport) -> bytes:
    """Render everything, in our own JSON format."""
    return catalog.reports()["json"].render(report.subject).encode()


def sbom(report: HarborReport, media_type: str) -> bytes:
    """Render the SBOM. ``media_type`` is a key of `SBOM_FORMATS`. Its attributes say what it may lack."""
    document = orjson.loads(catalog.reports()[SBOM_FORMATS[media_type]].render(report.subject))
    body = {"vendor_attributes": _attributes(report), "media_type": media_type, "sbom": document}
    return orjson.dumps(_head(report) | body)


def _head(report: HarborReport) -> dict[str, Any]:
    artifact = {"repository": report.reference.repository, "digest": str(report.reference.digest)}
    if report.reference.tag:
        artifact["tag"] = report.reference.tag
    generated = report.found.finished_at.isoformat().replace("+00:00", "Z")
    return {"generated_at": generated, "artifact": artifact, "scanner": SCANNER}


def _items(report: HarborReport) -> list[dict[str, Any]]:
    """One finding for each id, package and version: Harbor stores findings under these three."""
    exempted = {r.subject: r.exemption for r in report.decision.reasons if r.kind is ReasonKind.EXEMPTED}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for image in report.found.images:
        for engine in image.engines:
            for each in engine.vulnerabilities:
                item = _item(each, exempted.get(each.id, ""))
                key = (item["id"], item["package"], item["version"])
                known = found.setdefault(key, item)
                # Two engines can rate one vulnerability differently. The worse rating counts, because Harbor blocks
                # by severity.
                if _ORDER.index(item["severity"]) > _ORDER.index(known["severity"]):
                    found[key] = item
    return list(found.values())


def _item(each: Vulnerability, exemption: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"status": each.status, "purl": clean_text(each.purl, 500)}
    attributes |= {"CVSS": scores} if (scores := _all_scores(each.cvss)) else {}
    attributes |= {"aliases": list(each.aliases[:_LINKS])} if each.aliases else {}
    attributes |= {"path": clean_text(each.path, 500)} if each.path else {}
    attributes |= {"layer": str(each.layer)} if each.layer else {}
    attributes |= {"known_exploited": each.known_exploited} if each.known_exploited is not None else {}
    attributes |= {"epss": each.epss} if each.epss is not None else {}
    attributes |= {"exemption": exemption} if exemption else {}
    return {
        "id": clean_text(each.id, 200),
        "package": clean_text(each.package, 300),
        "version": clean_text(each.installed_version, 300),
        "fix_version": clean_text(", ".join(each.fixed_versions), 300),
        "severity": _SEVERITIES[each.severity],
        "description": _text("\n".join(filter(None, (each.title, each.description)))),
        "links": _links((each.url, *each.references)),
        "preferred_cvss": _preferred_cvss(each.cvss),
        "cwe_ids": [clean_text(cwe, 50) for cwe in each.cwes[:_LINKS]],
        "vendor_attributes": attributes,
    }


def _own_findings(report: HarborReport) -> Iterator[dict[str, Any]]:
    unknown = gaps(report.subject)
    if report.undecided:
        first = "The image could not be decided, so it is denied:"
        yield _own_finding(
            report, "undecided", "Critical", _reason_list(first, report, [gap for gap in unknown if gap.fails])
        )
    # "Unknown" is the lowest severity in Harbor's order. The policy accepts these gaps, so they inform and do not
    # block at the usual thresholds.
    elif unknown:
        first = "Parts of the image could not be examined, which the decision accepts:"
        yield _own_finding(report, "incomplete", "Unknown", _reason_list(first, report, unknown))
    if not report.findings:
        return
    if report.denied:
        yield _own_finding(report, "denied", "Critical", _denial(report))
    yield from _checks(report)
    yield from _signatures(report)


def _reason_list(first: str, report: HarborReport, unknown: Sequence[Gap]) -> str:
    lines = [f"{gap.subject}: {clean_text(gap.message, 300)}" for gap in unknown[:_LISTED]]
    return "\n".join((first, *(lines or _reasons(report))))


def _denial(report: HarborReport) -> str:
    fixes = [clean_text(f"Fix: {c.text}", 300) for c in report.decision.changes[:3]]
    return "\n".join((f"Denied by policy {report.decision.policy}:", *_reasons(report), *fixes))


def _reasons(report: HarborReport) -> list[str]:
    return [clean_text(reason.message, 300) for reason in report.denying[:_LISTED]]


def _checks(report: HarborReport) -> Iterator[dict[str, Any]]:
    known = catalog.checks()
    seen: set[str] = set()
    for image in report.found.images:
        for result in image.checks:
            if not isinstance(result.outcome, Failed) or result.check in seen:
                continue
            seen.add(result.check)
            check = known.get(result.check)
            lines = [clean_text(each.message, 300) for each in result.outcome.evidence[:_LISTED]]
            remedy = result.outcome.remedy or (check.remedy if check else "")
            text = "\n".join((check.title if check else result.check, *lines, *([f"Fix: {remedy}"] if remedy else [])))
            severity = _SEVERITIES[result.outcome.severity or result.severity]
            yield _own_finding(report, result.check, severity, text)


def _signatures(report: HarborReport) -> Iterator[dict[str, Any]]:
    """A refused signature may be a forged one. No signature is a finding only where a policy asks for it."""
    refused: dict[str, list[str]] = {}
    for image in report.found.images:
        for one in image.verifications:
            if one.status is TrustStatus.REFUSED:
                refused.setdefault(one.scheme, []).append(clean_text(one.detail or one.reason, 300))
    for scheme, texts in refused.items():
        text = "\n".join(("A signature of the image is not accepted:", *dict.fromkeys(texts)))
        yield _own_finding(report, f"signature-{scheme}", "High", text)


def _own_finding(report: HarborReport, name: str, severity: str, text: str) -> dict[str, Any]:
    """A finding of ours.

    Harbor shares a finding between all images that have the same id, package and version, with one text. The version
    is therefore this image's digest.
    """
    return {
        "id": f"{PREFIX}{name}",
        "package": clean_text(report.reference.repository, 300),
        "version": str(report.reference.digest)[:19],
        "fix_version": "",
        "severity": severity,
        "description": _text(text),
        "links": [report.link] if report.link else [],
        "preferred_cvss": {},
        "cwe_ids": [],
        "vendor_attributes": {"dockwarden": {"verdict": str(report.decision.verdict)}},
    }


def _attributes(report: HarborReport) -> dict[str, Any]:
    """The decision, hardening, signatures and gaps, for programs that read Harbor's reports by its API."""
    decision, found = report.decision, report.found
    reasons = [r for r in decision.reasons if r.kind is not ReasonKind.SATISFIED]
    hardening = [
        {"check": each.check, "severity": str(failed.severity or each.severity), "count": len(failed.evidence)}
        for image in found.images
        for each in image.checks
        if isinstance(failed := each.outcome, Failed)
    ]
    signatures = [
        {"scheme": one.scheme, "status": str(one.status), "detail": clean_text(one.detail or one.reason, 300)}
        for image in found.images
        for one in image.verifications
    ]
    own = {
        "verdict": str(decision.verdict),
        "undecided": decision.undecided,
        "policy": decision.policy,
        "reasons": [clean_text(reason.message, 300) for reason in reasons[:_LISTED]],
        "complete": not (unknown := gaps(report.subject)),
        "gaps": [{"subject": gap.subject, "message": clean_text(gap.message, 300)} for gap in unknown[:_LISTED]],
        "hardening": hardening,
        "signatures": signatures,
    }
    return {"dockwarden": own | ({"link": report.link} if report.link else {})}


def _all_scores(cvss: Iterable[CVSS]) -> dict[str, dict[str, Any]]:
    """By source, with the names that Harbor knows from Trivy: it sorts by ``CVSS.nvd.V3Score``."""
    found: dict[str, dict[str, Any]] = {}
    for each in cvss:
        if (major := each.version[:1]) in ("2", "3", "4"):
            scores = found.setdefault(clean_text(each.source, 50) or "unknown", {})
            scores |= {f"V{major}Score": each.score, f"V{major}Vector": clean_text(each.vector, 200)}
    return found


def _preferred_cvss(cvss: Sequence[CVSS]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for major in ("3", "2"):
        own = [each for each in cvss if each.version.startswith(major)]
        if own:
            best = next((each for each in own if each.source == "nvd"), own[0])
            found |= {f"score_v{major}": best.score, f"vector_v{major}": clean_text(best.vector, 200)}
    return found


def _links(urls: Iterable[str]) -> list[str]:
    """Web addresses only: Harbor shows them as links, and joins them with ``|`` to store them."""
    found = dict.fromkeys(
        url
        for url in urls
        if url.startswith(("https://", "http://"))
        and url.isascii()
        and url.isprintable()
        and len(url) < 1000
        and not set(url) & set(' |<>"')
    )
    return list(found)[:_LINKS]


def _text(text: str) -> str:
    """Several lines of foreign text. PostgreSQL, which Harbor uses, refuses U+0000 even when it is escaped."""
    return "\n".join(clean_text(line, _DESCRIPTION) for line in text[:_DESCRIPTION].splitlines())
