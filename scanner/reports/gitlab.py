"""GitLab's container scanning report (security report schemas 15), which merge requests show.

https://docs.gitlab.com/ee/development/integrations/secure.html. The format holds vulnerabilities only, no checks. An
incomplete scan has status ``failure`` (``base.gaps``), so that GitLab does not show "no vulnerabilities".
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from scanner.model import agreement
from scanner.model.finding import Severity, Vulnerability
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.untrusted import clean_text
from scanner.patterns import lazy
from scanner.reports import _audit
from scanner.reports.base import AuditSubject, RefusedScan, ReportFormat, ReportSubject, gaps

_LINK = lazy(r"(https?|ftp)://\S")
_SEVERITIES = {Severity.NONE: "Info", Severity.UNKNOWN: "Unknown"}
_NAMESPACE = uuid.UUID("7e1f36a2-7d2c-5d6e-9d5b-0c1a5f1f6f0e")


class GitLabReport(ReportFormat):
    """See ``ReportFormat``."""

    id = "gitlab"
    title = "GitLab container scanning"
    purpose = "GitLab's container scanning report, shown in merge requests"
    media_type = "application/vnd.gitlab.container-scanning+json"
    extension = "json"

    def render(self, subject: ReportSubject) -> str:
        report, unknown = subject.report, gaps(subject)
        found = [item for image in report.images for item in _vulnerabilities(report, image)]
        return _document(
            report.dockwarden,
            (report.started_at, report.finished_at),
            [(gap.fails, f"{gap.subject}: {gap.message}") for gap in unknown],
            list({item["id"]: item for item in found}.values()),
        )

    def render_refused(self, refused: RefusedScan) -> str:
        """See ``ReportFormat.render_refused``."""
        messages = [(True, f"{refused.target}: {refused.message} ({refused.reason})")]
        return _document(refused.dockwarden, (refused.at, refused.at), messages, [])

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        return orjson.dumps(_audit.gitlab(subject), option=orjson.OPT_INDENT_2).decode()


def _document(
    version: str,
    times: tuple[datetime, datetime],
    messages: Sequence[tuple[bool, str]],
    vulnerabilities: Sequence[Mapping[str, Any]],
) -> str:
    """Build the report. ``times``: start and end. Each of ``messages``: whether it makes the scan a failure, and its
    text.
    """
    tool = {"id": "dockwarden", "name": "Dockwarden", "version": version or "0", "vendor": {"name": "Dockwarden"}}
    start, end = (f"{moment:%Y-%m-%dT%H:%M:%S}" for moment in times)
    document = {
        "version": "15.2.1",
        "scan": {
            "analyzer": tool,
            "scanner": tool,
            "type": "container_scanning",
            "start_time": start,
            "end_time": end,
            "status": "failure" if any(fails for fails, _ in messages) else "success",
            "messages": [
                {"level": "fatal" if fails else "warn", "value": _text(text, 500)} for fails, text in messages
            ],
        },
        "vulnerabilities": vulnerabilities,
        "remediations": [],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode()


def _vulnerabilities(report: ScanReport, image: ImageReport) -> Iterator[dict[str, Any]]:
    system = next(
        (f"{e.coverage.os_family} {e.coverage.os_version}".strip() for e in image.engines if e.coverage.os_family), ""
    )
    every = agreement.findings(image.engines)
    upgrades = agreement.Upgrades(every)
    for found in every:
        item = found.vulnerability
        # No scan id or time: GitLab tracks a vulnerability across scans by this id.
        place = f"{image.image.platform}\n{item.id}\n{item.purl}\n{item.path}"
        yield {
            "id": str(uuid.uuid5(_NAMESPACE, place)),
            "name": _text(item.title or item.id, 255),
            "description": _text("\n".join(filter(None, (item.description, found.dispute))) or item.id, 4000),
            "severity": _SEVERITIES.get(item.severity, item.severity.capitalize()),
            "solution": f"Upgrade {_text(item.package, 200)} to {_text(upgrades.of(item), 500)}"
            if item.fixable
            else "No fix is known yet.",
            "identifiers": list(_identifiers(item)),
            # The schema allows these URL schemes only, and pages show the URLs as links.
            "links": [{"url": _text(url, 2000)} for url in dict.fromkeys(item.references) if _LINK.match(url)],
            "location": {
                "dependency": {
                    "package": {"name": _text(item.package, 300)},
                    "version": _text(item.installed_version, 300),
                },
                "operating_system": _text(system, 200) or "unknown",
                "image": _text(report.reference, 500) or str(report.digest),
            },
        }


def _identifiers(item: Vulnerability) -> Iterator[dict[str, str]]:
    for name in dict.fromkeys((item.id, *item.aliases[:19])):
        kind = name.partition("-")[0].lower()
        text = _text(name, 200) or "unknown"
        known = {"cve": f"https://nvd.nist.gov/vuln/detail/{text}"} if kind == "cve" and name.isascii() else {}
        yield {
            "type": kind if kind in ("cve", "ghsa", "dsa", "rhsa", "usn", "elsa", "osv") else "advisory",
            "name": text,
            "value": text,
            **({"url": known["cve"]} if known else {}),
        }


def _text(value: str, limit: int) -> str:
    return clean_text(value, limit)
