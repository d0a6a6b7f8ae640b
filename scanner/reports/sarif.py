"""SARIF 2.1.0 (OASIS), for code hosts that show findings beside the code.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/. A gap is a notification of the run and sets ``executionSuccessful`` to
false (``base.gaps``). Otherwise a run without results would be read as "clean".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import orjson

from scanner.model import agreement
from scanner.model.decision import Decision, ReasonKind
from scanner.model.finding import CheckResult, Failed, Severity
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.untrusted import clean_text
from scanner.patterns import lazy
from scanner.reports import _audit
from scanner.reports.base import AuditSubject, RefusedScan, ReportFormat, ReportSubject, gaps

_LINK = lazy(r"https?://[!-~]{1,390}")  # an advisory's URL becomes a link, so only these schemes are allowed
_LEVELS = {Severity.CRITICAL: "error", Severity.HIGH: "error", Severity.UNKNOWN: "error", Severity.MEDIUM: "warning"}
# Code hosts sort by this score ("security-severity") if there is no CVSS score.
_SCORES = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.0",
    Severity.NONE: "0.0",
    Severity.UNKNOWN: "9.5",
}


class SarifReport(ReportFormat):
    """See ``ReportFormat``. One run; a rule for each vulnerability and check, a result for each place."""

    id = "sarif"
    title = "SARIF 2.1.0"
    purpose = "code hosts that show findings beside the code"
    media_type = "application/sarif+json"
    extension = "sarif"

    def render(self, subject: ReportSubject) -> str:
        rules: dict[str, dict[str, Any]] = {}
        found = [result for image in subject.report.images for result in _results(subject, image, rules)]
        # A vulnerability found by several paths gives equal results; code hosts reject runs with repeated fingerprints.
        results = list({result["partialFingerprints"]["dockwarden/v1"]: result for result in found}.values())
        order = {name: number for number, name in enumerate(rules)}
        unknown = gaps(subject)
        report = subject.report
        return _document(
            report.dockwarden,
            report.finished_at,
            [(gap.fails, f"{gap.subject}: unknown: {gap.message}", "") for gap in unknown],
            rules=list(rules.values()),
            results=[{**result, "ruleIndex": order[result["ruleId"]]} for result in results],
            properties={"image": _text(report.reference), "digest": str(report.digest)},
        )

    def render_refused(self, refused: RefusedScan) -> str:
        """See ``ReportFormat.render_refused``."""
        notifications = [(True, refused.message, refused.reason)]
        return _document(
            refused.dockwarden,
            refused.at,
            notifications,
            rules=[],
            results=[],
            properties={"image": _text(refused.target)},
        )

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        return orjson.dumps(_audit.sarif(subject), option=orjson.OPT_INDENT_2).decode()


def _document(
    version: str,
    ended: datetime,
    notifications: Sequence[tuple[bool, str, str]],
    *,
    rules: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    properties: Mapping[str, str],
) -> str:
    """Build a log of one run. Each notification: whether it makes the run a failure, its text, its id (may be
    empty).
    """
    run = {
        "tool": {"driver": {"name": "Dockwarden", "version": version or "0", "rules": rules}},
        "invocations": [
            {
                "executionSuccessful": not any(fails for fails, _, _ in notifications),
                "endTimeUtc": f"{ended:%Y-%m-%dT%H:%M:%SZ}",
                "toolExecutionNotifications": [
                    {
                        "level": "error" if fails else "warning",
                        "message": {"text": _text(text, 1000)},
                        **({"descriptor": {"id": name}} if name else {}),
                    }
                    for fails, text, name in notifications
                ],
            }
        ],
        "results": results,
        "properties": properties,
    }
    document = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode()


def _results(subject: ReportSubject, image: ImageReport, rules: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    accepted = _exemption_reasons(subject.decision)
    every = agreement.findings(image.engines)
    upgrades = agreement.Upgrades(every)
    for found in every:
        item = found.vulnerability
        name = _text(item.id)
        # The highest score of all sources, as code hosts sort by one number: underrating is the worse mistake.
        score = max((c.score for c in item.cvss), default=None)
        rules.setdefault(
            name,
            {
                "id": name,
                "shortDescription": {"text": _text(item.title or item.id)},
                "fullDescription": {"text": _text(item.description or item.title or item.id, 1000)},
                **({"helpUri": item.url} if _LINK.fullmatch(item.url) else {}),
                "properties": {
                    "security-severity": f"{score:.1f}" if score is not None else _SCORES[item.severity],
                    "tags": ["security", "vulnerability"],
                },
            },
        )
        fix = f"fixed in {upgrades.of(item)}" if item.fixable else "no fix yet"
        message = f"{item.id} ({item.severity}) in {item.package} {item.installed_version}, {fix}"
        if found.disputed:
            message += f" ({found.dispute})"
        logical = {"name": _text(item.package), "fullyQualifiedName": _text(item.purl), "kind": "package"}
        yield _result(
            subject.report, image, name, item.severity, message, item.path, accepted.get(item.id), logical, item.purl
        )
    for result in image.checks:
        if isinstance(result.outcome, Failed):
            yield from _check(subject.report, image, result, result.outcome, rules, accepted.get(result.check))


def _check(
    report: ScanReport,
    image: ImageReport,
    result: CheckResult,
    outcome: Failed,
    rules: dict[str, dict[str, Any]],
    accepted: str | None,
) -> Iterator[dict[str, Any]]:
    severity = outcome.severity or result.severity
    rules.setdefault(
        result.check,
        {
            "id": result.check,
            "shortDescription": {"text": result.check},
            "properties": {"security-severity": _SCORES[severity], "tags": ["security", "hardening"]},
        },
    )
    for evidence in outcome.evidence[:100]:
        yield _result(
            report, image, result.check, severity, evidence.message, evidence.path, accepted, None, evidence.message
        )


def _result(
    report: ScanReport,
    image: ImageReport,
    rule: str,
    severity: Severity,
    message: str,
    path: str,
    accepted: str | None,
    logical: Mapping[str, str] | None,
    key: str,
) -> dict[str, Any]:
    """A location that a code host can show: the file in the image, or the image's name."""
    # A SARIF result needs a file. Findings of the image as a whole point to the repository's name instead.
    where = path or report.repository or report.reference
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(_text(where).lstrip("/"), safe="/@._-") or "image"},
            "region": {"startLine": 1},
        }
    }
    if logical:
        location["logicalLocations"] = [dict(logical)]
    fingerprint = hashlib.sha256(
        "\n".join((rule, key, path, str(image.image.platform))).encode("utf-8", "replace")
    ).hexdigest()
    found = {
        "ruleId": rule,
        "level": _LEVELS.get(severity, "note"),
        "message": {"text": _text(message, 1000)},
        "locations": [location],
        "partialFingerprints": {"dockwarden/v1": fingerprint[:32]},
        "properties": {"image": str(image.image.digest), "platform": str(image.image.platform)},
    }
    if accepted is not None:
        # ``suppressions`` lets code hosts close the alert and keep the reason, instead of hiding the finding.
        found["suppressions"] = [{"kind": "external", "status": "accepted", "justification": _text(accepted)}]
    return found


def _exemption_reasons(decision: Decision | None) -> dict[str, str]:
    """Map each exempted subject to the exemption's reason."""
    reasons = decision.reasons if decision else ()
    return {reason.subject: reason.message for reason in reasons if reason.kind is ReasonKind.EXEMPTED}


def _text(value: str, limit: int = 400) -> str:
    return clean_text(value, limit)
