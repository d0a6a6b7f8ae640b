"""Vulnerabilities and the images that they affect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import orjson
from flask import Response, stream_with_context
from pydantic import Field, StringConstraints

from scanner.model.decision import Verdict
from scanner.model.finding import CVSS, Severity
from scanner.store import listings, vulnerabilities
from web.api.base import DigestText, Model, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("vulnerabilities", "Vulnerabilities", "Advisories and affected images.")


class AffectedOut(Model):
    digest: DigestText
    repository: str
    tag: str
    package: str
    version: str
    fixable: bool
    verdict: Verdict


class VulnerabilityOut(Model):
    """The advisory by the newest scan. ``truncated``: more images are affected than are listed."""

    id: str
    severity: Severity
    title: str
    description: str
    url: str
    aliases: list[str]
    cwes: list[str]
    cvss: list[CVSS]
    references: list[str]
    known_exploited: bool | None = Field(description="Whether CISA's KEV lists it; null: not looked up.")
    epss: float | None = Field(description="Probability of exploitation within 30 days, by EPSS; null: unknown.")
    affected: list[AffectedOut]
    truncated: bool


class VulnerabilityPath(Model):
    vulnerability_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]


class AffectedQuery(Model):
    limit: int = Field(200, ge=1, le=1000)


@api.get(
    "/vulnerabilities/export",
    responses={"200": {"description": "JSON lines", "content": {"application/x-ndjson": {"schema": {}}}}},
)
@permission("read")
def export() -> Response:
    """Export all findings as JSON lines

    One line for each vulnerable package of each listed image.
    """
    headers = {"Content-Disposition": 'attachment; filename="findings.jsonl"'}
    found = stream_with_context(_lines(principal().projects))
    return Response(found, mimetype="application/x-ndjson", headers=headers)


def _lines(projects: frozenset[str] | None) -> Iterator[bytes]:
    """Yield the findings, read from the database while they are sent."""
    with resources().database.read() as session:
        for row in vulnerabilities.export_findings(session, projects):
            yield orjson.dumps(row) + b"\n"


@api.get("/vulnerabilities/<vulnerability_id>", responses={"200": VulnerabilityOut, **problems(404)})
@permission("read")
def get(path: VulnerabilityPath, query: AffectedQuery) -> Response:
    """Read an advisory and the images that it affects"""
    with resources().database.read() as session:
        found, rows = listings.affected_images(
            session, path.vulnerability_id, principal().projects, limit=query.limit + 1
        )
    document = found["document"]
    return answer(
        VulnerabilityOut(
            id=found["name"],
            severity=found["severity"],
            title=found["title"],
            description=found["description"],
            url=found["url"],
            # Rows of older versions have fewer members.
            aliases=document.get("aliases") or [],
            cwes=document.get("cwes") or [],
            cvss=[CVSS(*entry) for entry in document.get("cvss") or ()],
            references=document.get("references") or [],
            known_exploited=document.get("known_exploited"),
            epss=document.get("epss"),
            affected=[
                AffectedOut(
                    digest=row.digest,
                    repository=row.repository,
                    tag=row.tag,
                    package=row.package,
                    version=row.version,
                    fixable=row.fixable,
                    verdict=row.verdict,
                )
                for row in rows[: query.limit]
            ],
            truncated=len(rows) > query.limit,
        )
    )
