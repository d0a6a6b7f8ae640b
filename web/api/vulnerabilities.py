"""One vulnerability, and everything it touches."""

from __future__ import annotations

from typing import Annotated

from flask import Response
from pydantic import Field, StringConstraints

from scanner.model.decision import Verdict
from scanner.model.finding import CVSS, Severity
from scanner.store import listings
from web.api.base import DigestText, Model, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("vulnerabilities", "Vulnerabilities", "Advisories, and the images they touch.")


class AffectedOut(Model):
    digest: DigestText
    repository: str
    tag: str
    package: str
    version: str
    fixable: bool
    verdict: Verdict


class VulnerabilityOut(Model):
    """The advisory as the newest scan told it. ``truncated``: more images are affected than are listed."""

    id: str
    severity: Severity
    title: str
    description: str
    url: str
    aliases: list[str]
    cwes: list[str]
    cvss: list[CVSS]
    references: list[str]
    known_exploited: bool | None = Field(description="Whether CISA's KEV lists it; null: nobody looked it up.")
    epss: float | None = Field(description="How likely it is exploited in the next 30 days, by EPSS; null: not known.")
    affected: list[AffectedOut]
    truncated: bool


class VulnerabilityPath(Model):
    vulnerability_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]


class AffectedQuery(Model):
    limit: int = Field(200, ge=1, le=1000)


@api.get("/vulnerabilities/<vulnerability_id>", responses={"200": VulnerabilityOut, **problems(404)})
@permission("read")
def get(path: VulnerabilityPath, query: AffectedQuery) -> Response:
    """An advisory, and every image it touches"""
    with resources().database.read() as session:
        found, rows = listings.affected(session, path.vulnerability_id, principal().projects, limit=query.limit + 1)
    document = found["document"]
    return answer(
        VulnerabilityOut(
            id=found["name"],
            severity=found["severity"],
            title=found["title"],
            description=found["description"],
            url=found["url"],
            aliases=document["aliases"],
            cwes=document["cwes"],
            cvss=[CVSS(*entry) for entry in document["cvss"]],
            references=document["references"],
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
