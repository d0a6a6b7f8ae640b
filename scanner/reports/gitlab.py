"""GitLab's container scanning report (security report schemas 15), which merge requests show.

https://docs.gitlab.com/ee/development/integrations/secure.html. Only vulnerabilities: the format has no place for checks. A scan that
could not look everywhere has status ``failure``, which GitLab shows instead of "no vulnerabilities".
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import orjson

from scanner.model import agreement
from scanner.model.finding import Severity, Vulnerability
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.untrusted import clean_text
from scanner.reports.base import ReportFormat, ReportSubject

_SEVERITIES = {Severity.NONE: "Info", Severity.UNKNOWN: "Unknown"}
_NAMESPACE = uuid.UUID("7e1f36a2-7d2c-5d6e-9d5b-0c1a5f1f6f0e")


class GitLabReport(ReportFormat):
    """See ``ReportFormat``."""

    id = "gitlab"
    title = "GitLab container scanning"
    media_type = "application/vnd.gitlab.container-scanning+json"
    extension = "json"

    def render(self, subject: ReportSubject) -> str:
        report = subject.report
        version = report.dockwarden or "0"
        tool = {"id": "dockwarden", "name": "Dockwarden", "version": version, "vendor": {"name": "Dockwarden"}}
        found = [item for image in report.images for item in _vulnerabilities(report, image)]
        document = {
            "version": "15.2.1",
            "scan": {
                "analyzer": tool,
                "scanner": tool,
                "type": "container_scanning",
                "start_time": f"{report.started_at:%Y-%m-%dT%H:%M:%S}",
                "end_time": f"{report.finished_at:%Y-%m-%dT%H:%M:%S}",
                "status": "success" if _looked(report) else "failure",
                "messages": [{"level": "fatal", "value": text} for text in _unknown(report)],
            },
            "vulnerabilities": list({item["id"]: item for item in found}.values()),
            "remediations": [],
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode()


def _vulnerabilities(report: ScanReport, image: ImageReport) -> Iterator[dict[str, Any]]:
    system = next(
        (f"{e.coverage.os_family} {e.coverage.os_version}".strip() for e in image.engines if e.coverage.os_family), ""
    )
    for found in agreement.findings(image.engines):
        item = found.vulnerability
        place = f"{image.image.platform}\n{item.id}\n{item.purl}\n{item.path}"
        yield {
            "id": str(uuid.uuid5(_NAMESPACE, place)),
            "name": _text(item.title or item.id, 255),
            "description": _text("\n".join(filter(None, (item.description, found.dispute))) or item.id, 4000),
            "severity": _SEVERITIES.get(item.severity, item.severity.capitalize()),
            "solution": f"Upgrade {_text(item.package, 200)} to {_text(' or '.join(item.fixed_versions), 500)}"
            if item.fixable
            else "No fix is known yet.",
            "identifiers": list(_identifiers(item)),
            "links": [{"url": _text(url, 2000)} for url in dict.fromkeys(item.references)],
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
        text = _text(name, 200)
        known = {"cve": f"https://nvd.nist.gov/vuln/detail/{text}"} if kind == "cve" and name.isascii() else {}
        yield {
            "type": kind if kind in ("cve", "ghsa", "dsa", "rhsa", "usn", "elsa", "osv") else "advisory",
            "name": text,
            "value": text,
            **({"url": known["cve"]} if known else {}),
        }


def _looked(report: ScanReport) -> bool:
    return next(_unknown(report), None) is None


def _unknown(report: ScanReport) -> Iterator[str]:
    if not report.images:
        yield "no image was examined"
    for image in report.images:
        if not image.engines:
            yield "no engine looked for vulnerabilities"
        gaps = [*image.incomplete, *(gap for engine in image.engines for gap in engine.incomplete)]
        yield from (_text(gap.detail or gap.reason, 500) for gap in gaps)


def _text(value: str, limit: int) -> str:
    return clean_text(value, limit)
