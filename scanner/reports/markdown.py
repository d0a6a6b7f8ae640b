"""Markdown, for a job summary or a comment on a merge request."""

from __future__ import annotations

from collections import Counter

from scanner.model import agreement
from scanner.model.decision import ReasonKind, Verdict
from scanner.model.finding import Severity
from scanner.reports import _audit
from scanner.reports.base import AuditSubject, RefusedScan, ReportFormat, ReportSubject

_MARKS = {Verdict.ALLOW: "✓", Verdict.WARN: "▲", Verdict.DENY: "✕"}
# A comment on a merge request should be read to its end.
_REASONS = 20
_SEVERITIES = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW, Severity.UNKNOWN)


class MarkdownReport(ReportFormat):
    """See ``ReportFormat``.

    A summary: verdict, reasons and number of findings. Other formats list the findings.
    """

    id = "markdown"
    title = "Markdown"
    purpose = "a job summary or a comment on a merge request"
    media_type = "text/markdown"
    extension = "md"

    def render(self, subject: ReportSubject) -> str:
        report, decision = subject.report, subject.decision
        name = _audit.markdown_text(report.reference or str(report.digest))
        label = f"{_MARKS[decision.verdict]} {decision.verdict}" if decision else "scanned"
        if decision and decision.undecided:
            label += " (could not be decided)"
        lines = [f"## Dockwarden: {label}", "", f"{name} · `{report.digest}`"]
        if decision:
            lines += ["", f"Policy {_audit.markdown_text(decision.policy)}.", ""]
            lines += (
                ["| Action | Rule | Reason | What to do |", "| --- | --- | --- | --- |"] if decision.reasons else []
            )
            for reason in decision.reasons[:_REASONS]:
                message = f"unknown: {reason.message}" if reason.kind is ReasonKind.INCOMPLETE else reason.message
                cells = (str(reason.action), reason.rule, message, reason.remedy)
                lines.append("| " + " | ".join(_audit.markdown_text(cell) for cell in cells) + " |")
            if more := len(decision.reasons) - _REASONS:
                lines += ["", f"… and {more} more reasons."] if more > 0 else []
        for image in report.images:
            counts = Counter(found.vulnerability.severity for found in agreement.findings(image.engines))
            examined = image.engines and not any(engine.incomplete for engine in image.engines)
            none = "none found" if examined else "unknown, because the scan is incomplete"
            numbers = ", ".join(f"{counts[s]} {s}" for s in _SEVERITIES if counts[s]) or none
            lines += ["", f"{image.image.platform}: vulnerabilities: {numbers}."]
        return "\n".join(lines) + "\n"

    def render_refused(self, refused: RefusedScan) -> str:
        """See ``ReportFormat.render_refused``."""
        lines = ["## Dockwarden: ✕ could not be decided", "", _audit.markdown_text(refused.target), ""]
        lines.append(f"{_audit.markdown_text(refused.message)} ({_audit.markdown_text(refused.reason)})")
        lines += ["", f"What to do: {_audit.markdown_text(refused.hint)}"] if refused.hint else []
        return "\n".join(lines) + "\n"

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        return _audit.markdown(subject)
