"""A sample: the verdict alone."""

from __future__ import annotations

from scanner.model.untrusted import clean_text
from scanner.reports.base import AuditSubject, ReportFormat, ReportSubject


class SampleReport(ReportFormat):
    """See ``ReportFormat``. One line."""

    id = "sample-report"
    title = "Sample report"
    purpose = "one line with the verdict"
    media_type = "text/x-sample-report"
    extension = "txt"

    def render(self, subject: ReportSubject) -> str:
        """See ``ReportFormat.render``."""
        verdict = subject.decision.verdict if subject.decision else "scanned"
        return f"{clean_text(subject.report.reference, 300)}: {verdict}\n"

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        return "audited\n"
