"""JUnit XML, for CI systems that show tests. ``failure`` means denied, ``error`` means undecided.

With a decision, each reason is a test, so that a job fails if and only if the image is denied. Without one, each
check and each vulnerable package is a test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree as xml

from scanner.model import agreement
from scanner.model.decision import Decision, ReasonKind, Verdict
from scanner.model.finding import Failed, Incomplete, NotApplicable, Vulnerability
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.untrusted import clean_text
from scanner.patterns import lazy
from scanner.reports import _audit
from scanner.reports.base import AuditSubject, RefusedScan, ReportFormat, ReportSubject

_NOT_XML = lazy("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


@dataclass(frozen=True)
class _Case:
    """``outcome`` is an element of the format: failure, error, skipped, or empty for a test that passed."""

    suite: str
    name: str
    outcome: str = ""
    message: str = ""


class JunitReport(ReportFormat):
    """See ``ReportFormat``."""

    id = "junit"
    title = "JUnit"
    purpose = "CI systems that show tests; with a policy, a test fails if and only if the image is denied"
    media_type = "application/junit+xml"
    extension = "xml"

    def render(self, subject: ReportSubject) -> str:
        cases = list(_decision_cases(subject.decision) if subject.decision else _evidence_cases(subject.report))
        return _document(subject.report.reference, subject.report.finished_at, cases)

    def render_refused(self, refused: RefusedScan) -> str:
        """See ``ReportFormat.render_refused``."""
        case = _Case("image", "was examined", "error", f"{refused.message} ({refused.reason})")
        return _document(refused.target, refused.at, [case])

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        root = _audit.junit(subject)
        xml.indent(root)
        text = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", xml.tostring(root, encoding="unicode"))
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _document(name: str, ended: datetime, cases: Sequence[_Case]) -> str:
    counts = _counts(cases)
    del counts["skipped"]  # Jenkins' schema allows it in suites only
    root = xml.Element("testsuites", {"name": _text(name), **counts})
    suites: dict[str, list[_Case]] = defaultdict(list)
    for case in cases:
        suites[case.suite].append(case)
    for title, own in suites.items():
        moment = f"{ended:%Y-%m-%dT%H:%M:%S}"
        suite = xml.SubElement(root, "testsuite", {"name": _text(title), "timestamp": moment, **_counts(own)})
        for case in own:
            element = xml.SubElement(suite, "testcase", classname=_text(title), name=_text(case.name))
            if case.outcome:
                xml.SubElement(element, case.outcome, message=_text(case.message)).text = _text(case.message)
            elif case.message:
                xml.SubElement(element, "system-out").text = _text(case.message)
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"


def _decision_cases(decision: Decision) -> Iterator[_Case]:
    suite = f"policy {decision.policy}"
    for reason in decision.reasons:
        denies = reason.action is Verdict.DENY and reason.kind is not ReasonKind.EXEMPTED
        outcome = ("error" if reason.kind is ReasonKind.INCOMPLETE else "failure") if denies else ""
        text = f"{reason.message}; {reason.remedy}" if reason.remedy else reason.message
        yield _Case(suite, f"{reason.rule}: {reason.subject}", outcome, text if denies else f"{reason.action}: {text}")
    if not decision.reasons:
        yield _Case(suite, "no rule of the policy is violated")


def _evidence_cases(report: ScanReport) -> Iterator[_Case]:
    if not report.images:
        yield _Case("image", "examined", "error", "no image was examined")
    for image in report.images:
        yield from _checks(image, f"{image.image.platform} {image.image.digest.short}")
        yield from _packages(image, f"{image.image.platform} {image.image.digest.short}")


def _checks(image: ImageReport, suite: str) -> Iterator[_Case]:
    for gap in image.incomplete:
        yield _Case(suite, f"image: {gap.reason}", "error", gap.detail or gap.reason)
    for result in image.checks:
        outcome = result.outcome
        if isinstance(outcome, Failed):
            yield _Case(suite, result.check, "failure", "; ".join(e.message for e in outcome.evidence[:10]) or "failed")
        elif isinstance(outcome, Incomplete):
            yield _Case(suite, result.check, "error", outcome.detail or outcome.reason)
        elif isinstance(outcome, NotApplicable):
            yield _Case(suite, result.check, "skipped", outcome.reason)
        else:
            yield _Case(suite, result.check)


def _packages(image: ImageReport, suite: str) -> Iterator[_Case]:
    if not image.engines:
        yield _Case(suite, "vulnerabilities", "error", "no engine looked for vulnerabilities")
    for engine in image.engines:
        reasons = "; ".join(gap.detail or gap.reason for gap in engine.incomplete)
        yield _Case(suite, f"{engine.engine} scanned everything", "error" if reasons else "", reasons)
    packages: dict[tuple[str, str], list[Vulnerability]] = defaultdict(list)
    every = agreement.findings(image.engines)
    upgrades = agreement.Upgrades(every)
    for found in every:
        packages[found.vulnerability.package, found.vulnerability.installed_version].append(found.vulnerability)
    for (name, version), items in packages.items():
        vulnerabilities = "; ".join(
            f"{v.id} ({v.severity}, {'fixed in ' + upgrades.of(v) if v.fixable else 'no fix'})" for v in items[:50]
        )
        yield _Case(suite, f"{name} {version}", "failure", vulnerabilities)


def _counts(cases: Sequence[_Case]) -> dict[str, str]:
    kinds = [case.outcome for case in cases]
    return {
        "tests": str(len(cases)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
    }


def _text(value: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", clean_text(value, 2000))
