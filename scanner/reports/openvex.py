"""OpenVEX 0.2.0 statements about the image's vulnerabilities, for scanners and admission controllers.

https://github.com/openvex/spec. The status is ``affected`` (with an action) or ``under_investigation``.
``not_affected`` needs a justification by a person and is never generated. A vulnerability with an exemption is still
``affected``: its risk was accepted.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import Any, NamedTuple

import orjson

from scanner.model import agreement
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.untrusted import clean_text
from scanner.reports._sbom import identity, image_purl
from scanner.reports.base import ReportFormat, ReportSubject


class OpenVexReport(ReportFormat):
    """See ``ReportFormat``. One statement for each vulnerability, with every affected package of every image."""

    id = "openvex"
    title = "OpenVEX 0.2.0"
    purpose = (
        "VEX statements: `affected` with what to do, `under_investigation`; never `not_affected`, "
        "which only a person can state"
    )
    media_type = "application/openvex+json"
    extension = "openvex.json"

    def render(self, subject: ReportSubject) -> str:
        report = subject.report
        document = {
            "@context": "https://openvex.dev/ns/v0.2.0",
            "@id": f"urn:uuid:{uuid.uuid5(identity(report), 'openvex')}",
            "author": f"Dockwarden {report.dockwarden}".strip(),
            "role": "Scanner",
            "timestamp": report.finished_at.isoformat(),
            "version": 1,
            "tooling": f"dockwarden/{report.dockwarden or '0'}",
            "statements": _statements(report),
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode()


class _Place(NamedTuple):
    """Where a vulnerability was found. ``upgrade``: the version of the package that fixes it and the others."""

    image: ImageReport
    found: agreement.Finding
    upgrade: str


def _statements(report: ScanReport) -> list[dict[str, Any]]:
    places: dict[tuple[str, str], list[_Place]] = defaultdict(list)
    for image in report.images:
        every = agreement.findings(image.engines)
        upgrades = agreement.Upgrades(every)
        for found in every:
            # An exempted vulnerability is still "affected": VEX states the exposure, the exemption accepts its risk.
            status = "under_investigation" if found.vulnerability.status == "under_investigation" else "affected"
            places[found.vulnerability.id, status].append(_Place(image, found, upgrades.of(found.vulnerability)))
    return [
        _statement(report, name, status, found) for (name, status), found in sorted(places.items(), key=lambda e: e[0])
    ]


def _statement(report: ScanReport, name: str, status: str, places: list[_Place]) -> dict[str, Any]:
    aliases = dict.fromkeys(alias for _, found, _ in places for alias in found.vulnerability.aliases if alias != name)
    # One statement for all packages and platforms: OpenVEX consumers take the newest statement per vulnerability and
    # product.
    parts: dict[str, set[str]] = defaultdict(set)
    for image, found, _ in places:
        parts[image_purl(report, image)].add(found.vulnerability.purl)
    statement: dict[str, Any] = {
        "vulnerability": {"name": _text(name), "aliases": [_text(alias) for alias in aliases]},
        "products": [
            {"@id": _text(product), "subcomponents": [{"@id": _text(purl)} for purl in sorted(purls)]}
            for product, purls in sorted(parts.items())
        ],
        "status": status,
    }
    if status == "affected":
        fixes = {f"upgrade {place.found.vulnerability.package} to {place.upgrade}" for place in places if place.upgrade}
        statement["action_statement"] = _text("; ".join(sorted(fixes)) or "no fix is known yet", 1000)
    return statement


def _text(value: str, limit: int = 2000) -> str:
    return clean_text(value, limit)
