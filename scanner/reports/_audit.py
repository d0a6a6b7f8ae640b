"""Audit reports (workloads), one function for each format. The modules of the formats call them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import Reason, ReasonKind, Verdict
from scanner.model.finding import Evidence, Failed, Incomplete, Severity
from scanner.model.plurals import number_of
from scanner.model.untrusted import clean_text, spreadsheet_text
from scanner.reports.base import AuditSubject

# Every format imports this module, also for reports of images.
if TYPE_CHECKING:
    from xml.etree import ElementTree as xml

    from scanner.model.workload_audit import AuditReport, ImageAnswer, WorkloadReport

_MARKS = {Verdict.ALLOW: "✓", Verdict.WARN: "▲", Verdict.DENY: "✕"}
# Findings of one workload in a comment: a forge cuts a longer one off anywhere.
_MOST_ROWS = 100
_COLORS = {Verdict.ALLOW: "32", Verdict.WARN: "33", Verdict.DENY: "31"}
_LEVELS = {Severity.CRITICAL: "error", Severity.HIGH: "error", Severity.UNKNOWN: "error", Severity.MEDIUM: "warning"}
# GitHub orders SARIF results by this number. Unknown counts as critical: an unknown severity is not a low one.
_SCORES = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0", "none": "0.0", "unknown": "9.5"}
# Code Quality has its own scale (info to blocker), which is why ``critical`` becomes ``blocker``.
_QUALITY = {
    "critical": "blocker",
    "high": "critical",
    "medium": "major",
    "low": "minor",
    "none": "info",
    "unknown": "critical",
}
# Shown of each workload; --all shows every one.
_REASONS = 10


@dataclass(frozen=True)
class AuditFinding:
    """One piece of evidence of one check of one workload."""

    report: WorkloadReport
    check: str
    severity: Severity
    evidence: Evidence
    remedy: str

    @property
    def fingerprint(self) -> str:
        """A stable identifier: the same in the next audit of the document, even if its line numbers change."""
        # Line numbers are left out on purpose: a comment added above would otherwise make every finding look new.
        parts = (self.check, self.report.workload.name, self.evidence.path, self.evidence.message)
        return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


def findings(subject: AuditSubject) -> Iterator[AuditFinding]:
    """Every finding, in the order of the workloads."""
    for report in subject.audit.workloads:
        yield from _findings_of(report, subject)


def _findings_of(report: WorkloadReport, subject: AuditSubject) -> Iterator[AuditFinding]:
    for result in report.checks:
        if isinstance(result.outcome, Failed):
            severity = result.outcome.severity or result.severity
            remedy = result.outcome.remedy or subject.remedies.get(result.check, "")
            for evidence in result.outcome.evidence:
                yield AuditFinding(report, result.check, severity, evidence, remedy)


def gaps(audit: AuditReport) -> Iterator[tuple[WorkloadReport, str, str]]:
    """Yield what is unknown: the workload, the check's id or ``image``, and a sentence."""
    for report in audit.workloads:
        for result in report.checks:
            if isinstance(result.outcome, Incomplete):
                yield report, result.check, result.outcome.detail or result.outcome.reason
        if report.image is not None and (report.image.verdict is None or report.image.undecided):
            yield report, "image", report.image.message or "the image could not be decided"


def table(subject: AuditSubject) -> str:
    """Format for a terminal: each workload with its verdict, reasons, and the line to change."""
    audit = subject.audit
    lines: list[str] = []
    for report in audit.workloads:
        lines.extend(_workload_lines(subject, report))
        lines.append("")
    counts = {verdict: sum(1 for each in audit.workloads if each.verdict is verdict) for verdict in Verdict}
    total = ", ".join(f"{counts[v]} {v}" for v in (Verdict.DENY, Verdict.WARN, Verdict.ALLOW) if counts[v])
    builds = sum(1 for each in audit.workloads if each.workload.kind == "Dockerfile")
    number = len(audit.workloads) - builds
    subjects = [f"{number} workload{'' if number == 1 else 's'}"] if number or not builds else []
    subjects += [f"{builds} Dockerfile{'' if builds == 1 else 's'}"] if builds else []
    lines.append(f"{' and '.join(subjects)}: {total or 'none found'} (policy {audit.policy})")
    if builds:
        lines.append("A Dockerfile shows neither packages nor files: scan the image that it builds, too.")
    # A clean audit without image verdicts is easily read as "everything is fine": say what was not looked at.
    if number and all(each.image is None for each in audit.workloads):
        lines.append("The images were not evaluated: add --scan-images, or --server URL to ask a server.")
    return "\n".join(lines) + "\n"


def _workload_lines(subject: AuditSubject, report: WorkloadReport) -> Iterator[str]:
    verdict, workload = report.verdict, report.workload
    label = f"{_MARKS[verdict]} {verdict.upper()}" + (" (could not be decided)" if report.undecided else "")
    if subject.color:
        label = f"\x1b[1;{_COLORS[verdict]}m{label}\x1b[0m"
    yield f"{label}  {clean_text(workload.name, 200)}"
    place = workload.place()
    about = [clean_text(workload.image, 300) if workload.image else "", str(place) if place.line is not None else ""]
    if any(about):
        yield f"  {'  '.join(filter(None, about))}"
    if report.image is not None:
        yield from _image_lines(report.image, subject.width)
    shown = report.reasons if subject.show_all else report.reasons[:_REASONS]
    for reason in shown:
        yield from _reason_lines(reason, workload.name, subject.width)
    if more := len(report.reasons) - len(shown):
        yield f"  … and {more} more (--all shows them)"


def _image_lines(image: ImageAnswer, width: int) -> Iterator[str]:
    verdict = "unknown" if image.verdict is None else f"{image.verdict}{' (undecided)' if image.undecided else ''}"
    yield f"  image {verdict}" + (f": {clean_text(image.message, 200)}" if image.message else "")
    for text in image.reasons[:3]:
        yield from _wrapped_lines(text, width, "    ")


def _reason_lines(reason: Reason, name: str, width: int) -> list[str]:
    unknown = "unknown: " if reason.kind is ReasonKind.INCOMPLETE else ""
    # The heading of the block already names the workload.
    message = reason.message.replace(f"{name}: ", "", 1)
    where = ""
    for each in reason.evidence:
        if each.path:
            where = f" ({each.path}:{each.line})" if each.line else f" ({each.path})"
            break
    lines = _wrapped_lines(f"{reason.action.value:<5} {unknown}{message}{where}", width, "  ", "        ")
    return [*lines, *_remedy_lines(reason.remedy)] if reason.remedy else lines


@lru_cache(maxsize=256)  # few remedies, for thousands of findings
def _remedy_lines(remedy: str) -> tuple[str, ...]:
    return tuple(f"        → {clean_text(line, 300)}" for line in remedy.splitlines()[:12])


def _wrapped_lines(text: str, width: int, first: str, rest: str = "") -> list[str]:
    """Wrap a text at its spaces only.

    ``textwrap`` takes half the time of an audit of thousands of workloads, and breaks names at their hyphens: a file
    and line that a terminal would open must stay whole.
    """
    left, indent, lines = clean_text(text, 600).strip(), first, []
    while len(left) > (room := max(width - len(indent), 1)):
        end = left.rfind(" ", 0, room + 1)
        end = end if end > 0 else left.find(" ", room)  # a word that is longer than the line
        if end < 0:
            break
        lines.append(indent + left[:end].rstrip())
        left, indent = left[end:].lstrip(), rest or first
    return [*lines, indent + left]


def sarif(subject: AuditSubject) -> dict[str, Any]:
    """SARIF 2.1.0: each result at the file and line to change."""
    rules: dict[str, dict[str, Any]] = {}
    numbers: dict[str, int] = {}
    results = []
    for found in findings(subject):
        rules.setdefault(
            found.check,
            {
                "id": found.check,
                "shortDescription": {"text": subject.titles.get(found.check, found.check)},
                "help": {"text": found.remedy or subject.titles.get(found.check, found.check)},
                "properties": {"security-severity": _SCORES[found.severity], "tags": ["security", "workload"]},
            },
        )
        results.append(
            {
                "ruleId": found.check,
                "ruleIndex": numbers.setdefault(found.check, len(numbers)),
                "level": _LEVELS.get(found.severity, "note"),
                "message": {"text": clean_text(found.evidence.message, 1000)},
                "locations": [_location(found)],
                "partialFingerprints": {"dockwarden/v1": found.fingerprint},
            }
        )
    unknown = [_notification(*gap) for gap in gaps(subject.audit)]
    # executionSuccessful: false makes code hosts show the run as failed instead of "no results, all clean".
    driver = {"name": "Dockwarden", "version": subject.audit.dockwarden or "0", "rules": list(rules.values())}
    invocation = {"executionSuccessful": not unknown, "toolExecutionNotifications": unknown}
    run = {"tool": {"driver": driver}, "invocations": [invocation], "results": results}
    return {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}


def _notification(report: WorkloadReport, name: str, text: str) -> dict[str, Any]:
    """What is unknown: the check, the workload's place, and why."""
    place = report.workload.place()
    return {
        "descriptor": {"id": name},
        "level": "error",
        "message": {"text": clean_text(_gap_text(report, name, text), 1000)},
        "locations": [_location_of(report, place.file, place.line)],
    }


def _gap_text(report: WorkloadReport, name: str, text: str) -> str:
    """Return the sentence about a gap, with the workload's name once: some checks begin with it."""
    workload = report.workload.name
    return f"{workload}: {name}: unknown: {text.removeprefix(f'{workload}: ')}"


def _location(found: AuditFinding) -> dict[str, Any]:
    return _location_of(found.report, found.evidence.path, found.evidence.line)


def _location_of(report: WorkloadReport, path: str, line: int | None) -> dict[str, Any]:
    # A relative URI: code hosts match it to a file of the repository. A leading slash would leave the repository.
    uri = quote(clean_text(path, 500).lstrip("/")) or "workload"
    return {
        "physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": line or 1}},
        "logicalLocations": [{"fullyQualifiedName": clean_text(report.workload.name, 300)}],
    }


def junit(subject: AuditSubject) -> xml.Element:
    """JUnit: a suite for each workload, a test for each reason. A suite fails if and only if the workload is denied."""
    from xml.etree import ElementTree as xml

    root = xml.Element("testsuites", {"name": clean_text(" ".join(subject.audit.targets), 300)})
    for report in subject.audit.workloads:
        name = clean_text(report.workload.name, 300)
        suite = xml.SubElement(root, "testsuite", {"name": name})
        _junit_image(suite, name, report)
        for reason in report.reasons:
            case = xml.SubElement(
                suite, "testcase", classname=name, name=clean_text(f"{reason.rule}: {reason.subject}", 300)
            )
            denies = reason.action is Verdict.DENY and reason.kind is not ReasonKind.EXEMPTED
            place = next((f" ({e.path}:{e.line})" for e in reason.evidence if e.path and e.line), "")
            text = clean_text(reason.message + place, 1000)
            if denies:
                kind = "error" if reason.kind is ReasonKind.INCOMPLETE else "failure"
                xml.SubElement(case, kind, message=text).text = clean_text(reason.remedy, 1000)
            else:
                xml.SubElement(case, "system-out").text = f"{reason.action}: {text}"
        # A suite without tests is shown as "skipped" by most CI systems, not as passed.
        if not len(suite):
            xml.SubElement(suite, "testcase", classname=name, name="no rule of the policy is violated")
        _set_counts(suite)
    _set_counts(root)
    return root


def _junit_image(suite: xml.Element, name: str, report: WorkloadReport) -> None:
    if report.image is None:
        return
    from xml.etree import ElementTree as xml

    case = xml.SubElement(suite, "testcase", classname=name, name=f"image {clean_text(report.workload.image, 300)}")
    if report.image.verdict in (None, Verdict.DENY):
        kind = "error" if report.image.verdict is None or report.image.undecided else "failure"
        text = clean_text("; ".join((report.image.message, *report.image.reasons)).strip("; "), 1000)
        xml.SubElement(case, kind, message=text or "denied")


def _set_counts(element: xml.Element) -> None:
    # The counts include nested suites: Jenkins and GitLab read them from the root element instead of counting.
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error")):
        element.set(attribute, str(sum(1 for case in cases if case.find(tag) is not None)))


def gitlab(subject: AuditSubject) -> list[dict[str, Any]]:
    """GitLab's Code Quality report, which merge requests show beside the lines of the change.

    https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
    """
    return [
        {
            "description": clean_text(found.evidence.message, 1000),
            "check_name": found.check,
            "fingerprint": found.fingerprint,
            "severity": _QUALITY[found.severity],
            "location": {
                "path": clean_text(found.evidence.path, 500) or "workload",
                "lines": {"begin": found.evidence.line or 1},
            },
        }
        for found in findings(subject)
    ]


def rows(subject: AuditSubject) -> str:
    """CSV: a row for each finding. An apostrophe stops a spreadsheet from running a cell as a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("workload", "verdict", "image", "check", "severity", "file", "line", "finding", "remedy"))
    for found in findings(subject):
        workload, evidence = found.report.workload, found.evidence
        cells = (workload.name, found.report.verdict, workload.image, found.check, found.severity, evidence.path)
        writer.writerow([_cell(str(c)) for c in (*cells, evidence.line or "", evidence.message, found.remedy)])
    return out.getvalue()


def _cell(text: str) -> str:
    return spreadsheet_text(clean_text(text, 2000))


def markdown(subject: AuditSubject) -> str:
    """Markdown for a job summary or a comment on a merge request."""
    audit = subject.audit
    mark = "undecided" if audit.undecided else str(audit.verdict)
    lines = [
        f"## Dockwarden audit: {mark}",
        "",
        "| Verdict | Workload | Image | Failed checks |",
        "| --- | --- | --- | --- |",
    ]
    for report in audit.workloads:
        number = sum(1 for result in report.checks if isinstance(result.outcome, Failed))
        cells = (f"{_MARKS[report.verdict]} {report.verdict}", report.workload.name, _image_cell(report), str(number))
        lines.append("| " + " | ".join(markdown_text(cell) for cell in cells) + " |")
    for report in audit.workloads:
        own = list(_findings_of(report, subject))
        if own:
            lines += [
                "",
                f"<details><summary>{markdown_text(report.workload.name)}: {number_of(len(own), 'finding')}</summary>",
                "",
            ]
            lines += ["| Severity | Check | Where | Finding |", "| --- | --- | --- | --- |"]
            for found in own[:_MOST_ROWS]:
                where = f"{found.evidence.path}:{found.evidence.line}" if found.evidence.line else found.evidence.path
                cells = (found.severity, found.check, where, found.evidence.message)
                lines.append("| " + " | ".join(markdown_text(str(cell)) for cell in cells) + " |")
            if len(own) > _MOST_ROWS:
                left = number_of(len(own) - _MOST_ROWS, "finding")
                lines += ["", f"… and {left} more: the formats json and sarif list all of them."]
            lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _image_cell(report: WorkloadReport) -> str:
    if report.image is None:
        return report.workload.image
    return f"{report.workload.image} ({report.image.verdict or 'unknown'})"


def markdown_text(text: str) -> str:
    """Escape text for a Markdown table cell: no markup, link, mention or new row."""
    # An image name such as ``@team`` or ``[x](http://evil)`` in a comment must not notify people or become a link.
    escaped = escape(clean_text(text, 400), quote=False)
    for character in "\\`*_[]|#!~":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped.replace("\n", " ").replace("@", "&#64;")


def github(subject: AuditSubject) -> str:
    """Workflow commands of GitHub Actions: an annotation at each line."""
    commands = {"error": "error", "warning": "warning"}
    lines = []
    for found in findings(subject):
        command = commands.get(_LEVELS.get(found.severity, "note"), "notice")
        title = subject.titles.get(found.check, found.check)
        lines.append(annotation(command, title, found.evidence.message, found.evidence.path, found.evidence.line))
    for report, name, text in gaps(subject.audit):
        place = report.workload.place()
        lines.append(annotation("error", "Unknown", _gap_text(report, name, text), place.file, place.line))
    return "".join(lines)


def annotation(command: str, title: str, message: str, file: str = "", line: int | None = None) -> str:
    """Format one workflow command. Its values are escaped so that they cannot start another command."""
    where = f"file={_property(file)},line={line or 1}," if file else ""
    return f"::{command} {where}title={_property(title)}::{_command(message)}\n"


def _command(text: str) -> str:
    # GitHub's own escapes (actions/toolkit, command.ts). Without them a file name with a newline could start a command.
    return clean_text(text, 1000).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _command(text).replace(":", "%3A").replace(",", "%2C")


def html(subject: AuditSubject) -> Iterator[str]:
    """The body of a self-contained page."""
    audit = subject.audit
    yield f"<h1>Audit of {html_text(', '.join(audit.targets))}</h1>"
    label = audit.verdict.upper() + (" (could not be decided)" if audit.undecided else "")
    yield f'<h2 class="{audit.verdict}">{label}</h2><p>by policy {html_text(audit.policy)}</p>'
    for report in audit.workloads:
        yield f'<h2>{html_text(report.workload.name)} <span class="{report.verdict}">{report.verdict}</span></h2>'
        yield f"<p><code>{html_text(report.workload.image)}</code></p>"
        if report.image is not None:
            yield f"<p>Image: {html_text(str(report.image.verdict or 'unknown'))} {html_text(report.image.message)}</p>"
        own = list(_findings_of(report, subject))
        if not own:
            yield "<p>No findings.</p>"
            continue
        yield '<div class="scroll"><table><thead><tr>'
        yield "".join(
            f'<th scope="col">{name}</th>' for name in ("Severity", "Check", "Where", "Finding", "What to do")
        )
        yield "</tr></thead><tbody>"
        for found in own:
            where = f"{found.evidence.path}:{found.evidence.line}" if found.evidence.line else found.evidence.path
            cells = (found.severity, found.check, where, found.evidence.message, found.remedy)
            yield "<tr>" + "".join(f"<td>{html_text(str(cell))}</td>" for cell in cells) + "</tr>"
        yield "</tbody></table></div>"


def html_text(text: object) -> str:
    """Escape text for HTML content and quoted attributes: no markup, no control characters, at most 2000 characters."""
    return escape(clean_text(str(text), 2000))
