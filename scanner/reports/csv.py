"""CSV for spreadsheets (RFC 4180): a row for every vulnerability, failed check and gap.

Names of packages and files come from the image, so a cell that a spreadsheet would run as a formula gets an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from scanner.model import agreement
from scanner.model.finding import Failed
from scanner.model.scan import ScanReport
from scanner.model.untrusted import clean_text, spreadsheet_text
from scanner.reports import _audit
from scanner.reports.base import AuditSubject, ReportFormat, ReportSubject, image_gaps

_COLUMNS = (
    "image",
    "platform",
    "kind",
    "id",
    "severity",
    "package",
    "version",
    "fixed in",
    "status",
    "engines",
    "layer",
    "path",
    "text",
)


class CsvReport(ReportFormat):
    """See ``ReportFormat``."""

    id = "csv"
    title = "CSV"
    purpose = "spreadsheets; cells that look like formulas begin with an apostrophe"
    media_type = "text/csv"
    extension = "csv"

    def render(self, subject: ReportSubject) -> str:
        out = io.StringIO()
        # Quote every cell: spreadsheets guess types of unquoted ones, and turn versions such as 1.10 into numbers.
        writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        writer.writerow(_COLUMNS)
        for row in _rows(subject.report):
            writer.writerow([_cell(value) for value in row])
        return out.getvalue()

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        return _audit.rows(subject)


def _rows(report: ScanReport) -> Iterator[tuple[str, ...]]:
    if not report.images:
        yield _row(report.reference, "", "not known", "nothing_to_scan", text="no image was examined")
    for image in report.images:
        platform = str(image.image.platform)
        every = agreement.findings(image.engines)
        upgrades = agreement.Upgrades(every)
        for found in every:
            item = found.vulnerability
            layer = image.image.layer_of(item.layer)
            yield _row(
                report.reference,
                platform,
                "vulnerability",
                item.id,
                severity=item.severity,
                package=item.package,
                version=item.installed_version,
                fixed=upgrades.of(item),
                status=item.status,
                engines=" ".join(item.engines),
                layer=str(layer.index) if layer else "",
                path=item.path,
                text=found.dispute or item.title,
            )
        for result in image.checks:
            if isinstance(result.outcome, Failed):
                severity = result.outcome.severity or result.severity
                for evidence in result.outcome.evidence:
                    layer_index = "" if evidence.layer_index is None else str(evidence.layer_index)
                    yield _row(
                        report.reference,
                        platform,
                        "check",
                        result.check,
                        severity=severity,
                        layer=layer_index,
                        path=evidence.path,
                        text=evidence.message,
                    )
        for name, gap in image_gaps(image):
            yield _row(report.reference, platform, "not known", name, status=gap.reason, text=gap.detail)


def _row(
    reference: str,
    platform: str,
    kind: str,
    name: str,
    *,
    severity: str = "",
    package: str = "",
    version: str = "",
    fixed: str = "",
    status: str = "",
    engines: str = "",
    layer: str = "",
    path: str = "",
    text: str = "",
) -> tuple[str, ...]:
    return reference, platform, kind, name, severity, package, version, fixed, status, engines, layer, path, text


def _cell(value: str) -> str:
    return spreadsheet_text(clean_text(str(value), 2000))
