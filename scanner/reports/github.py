"""Workflow commands of GitHub Actions: findings as annotations.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions#setting-an-error-message
"""

from __future__ import annotations

from scanner.model.decision import ReasonKind, Verdict
from scanner.reports import _audit
from scanner.reports.base import AuditSubject, RefusedScan, ReportFormat, ReportSubject

_COMMANDS = {Verdict.DENY: "error", Verdict.WARN: "warning", Verdict.ALLOW: "notice"}


class GitHubReport(ReportFormat):
    """See ``ReportFormat``. An image has no source lines, so its reasons are annotations of the job."""

    id = "github"
    title = "GitHub annotations"
    purpose = "annotations of a GitHub Actions job"
    media_type = "text/x-github-workflow-commands"
    extension = "txt"

    def render(self, subject: ReportSubject) -> str:
        decision = subject.decision
        if decision is None:
            return _audit.annotation(
                "notice", "Dockwarden", f"{subject.report.reference}: scanned; no policy was evaluated"
            )
        lines = []
        for reason in decision.reasons:
            unknown = "unknown: " if reason.kind is ReasonKind.INCOMPLETE else ""
            message = f"{subject.report.reference}: {unknown}{reason.message}" + (
                f" ({reason.remedy})" if reason.remedy else ""
            )
            lines.append(_audit.annotation(_COMMANDS[reason.action], f"{reason.rule}", message))
        return "".join(lines) or _audit.annotation(
            "notice", "Dockwarden", f"{subject.report.reference}: {decision.verdict}"
        )

    def render_refused(self, refused: RefusedScan) -> str:
        """See ``ReportFormat.render_refused``."""
        hint = f" ({refused.hint})" if refused.hint else ""
        return _audit.annotation("error", refused.reason, f"{refused.target}: {refused.message}{hint}")

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        return _audit.github(subject)
