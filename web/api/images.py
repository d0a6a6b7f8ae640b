"""Images and their evidence. Everything is read from the newest scan; nothing is examined again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal, TypeVar

from flask import Response, request
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.errors import UsageError
from scanner.model import agreement
from scanner.model.decision import Verdict
from scanner.model.finding import (
    CheckResult,
    Component,
    Failed,
    Incomplete,
    NotApplicable,
    Passed,
    SecretMatch,
    Severity,
    Verification,
    Vulnerability,
)
from scanner.model.image import Image, Layer
from scanner.model.lineage import BaseImage, Origin, evidence_origin, vulnerability_origin
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, ScanReport
from scanner.reports.base import ReportSubject
from scanner.reports.json import parse_decision
from scanner.store import bases, gate, listings
from web.api.base import DigestText, Model, PageQuery, Text, answer, blueprint, problems
from web.api.gate import DecisionOut
from web.auth import permission, principal
from web.resources import resources

api = blueprint("images", "Images", "Scanned images and their evidence.")


class Counts(Model):
    critical: int
    high: int
    medium: int
    low: int
    unknown: int


class ListedOut(Model):
    project: str
    repository: str
    tag: str
    digest: DigestText
    verdict: Verdict
    undecided: bool
    vulnerabilities: Counts
    fixable: int
    failed_checks: int
    incomplete: int
    size: int
    scanned_at: datetime


class ImagePage(Model):
    items: list[ListedOut]
    next_cursor: str | None


class ImageQuery(PageQuery):
    search: Text = Field("", description="Text in repository, tag or digest.")
    verdict: list[Literal["allow", "warn", "deny", "undecided"]] = Field([], description="Verdicts to include.")
    repository: Text | None = None


class BaseOut(Model):
    """`source` "layers": proven, because the base is a scanned image; otherwise the image's own declaration."""

    reference: str
    digest: DigestText | None
    source: Literal["layers", "history", "annotations", "labels"]
    layers: int | None = Field(description="How many of the first layers belong to the base; null: unknown.")
    created: datetime | None
    newest: DigestText | None = Field(description="The current digest of its tag, if known.")
    outdated: bool | None = Field(description="Whether its tag points to another image now; null: unknown.")
    note: str


class PlatformImage(Model):
    """One image of the subject. An index has several."""

    digest: DigestText
    platform: str
    config_digest: DigestText
    size: int
    created: datetime | None
    user: str
    layers: int
    labels: dict[str, str]
    engines: list[str]
    system: str = Field(description="Distribution and version, by the first engine that recognised it.")
    end_of_life: date | None = Field(description="The last day of the system's support; null: unknown.")
    incomplete: list[Incomplete]
    base: BaseOut | None = Field(description="The base image; null: unknown.")


class ImageOut(Model):
    digest: DigestText
    media_type: str
    names: list[ListedOut] = Field(description="All names of the image, newest first.")
    images: list[PlatformImage]
    decision: DecisionOut | None
    scanned_at: datetime
    dockwarden: str


class ImagePath(Model):
    digest: DigestText


class Offset(Model):
    """Evidence is one immutable document: a page is a slice of it, and the cursor is a position."""

    limit: int = Field(100, ge=1, le=1000)
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,7}$")] | None = None


class FindingQuery(Offset):
    severity: list[Severity] = Field([], description="Severities to include.")
    fixable: bool | None = None
    package: Text | None = None
    status: list[Text] = Field([], description="Statuses to include, by the distribution: `affected`, `will_not_fix` …")
    disputed: bool | None = Field(None, description="Whether the engines differ.")


class OpinionOut(Model):
    """One engine's opinion on a finding.

    `silent`: it does not report the finding, and its report is complete. `unknown`: it does not report it, but its
    report is incomplete.
    """

    engine: str
    word: agreement.Stance
    id: str = Field(
        description="Its id for the vulnerability. This and the following members are empty unless it reports it."
    )
    severity: Severity | None
    status: str
    fixed_versions: list[str]


class FindingOut(Model):
    """`disputed`: the engines differ in whether it exists, in severity, or in whether there is a fix.

    `origin`: whether the package is part of the base image or was added by this image.
    """

    image: DigestText
    vulnerability: Vulnerability
    opinions: list[OpinionOut]
    disputed: bool
    origin: Origin


class FindingPage(Model):
    items: list[FindingOut]
    next_cursor: str | None


class ComponentQuery(Offset):
    attached: bool = Field(
        False,
        description="List components of SBOMs that are attached to the image, instead of those that engines found.",
    )


class ComponentOut(Model):
    """``attached``: digest of the SBOM that lists it; null: an engine found it."""

    image: DigestText
    component: Component
    attached: DigestText | None


class ComponentPage(Model):
    items: list[ComponentOut]
    next_cursor: str | None


class CheckOut(Model):
    """``image`` null: a check of the registry. ``origins``: the origin of each piece of evidence of a failure."""

    image: DigestText | None
    check: str
    title: str
    severity: Severity
    remedy: str
    outcome: Annotated[Passed | Failed | NotApplicable | Incomplete, Field(discriminator="kind")]
    origins: list[Origin]


class CheckList(Model):
    items: list[CheckOut]
    secrets: list[SecretMatch]


class SignatureOut(Model):
    image: DigestText
    verification: Verification


class SignatureList(Model):
    items: list[SignatureOut]


class LayerOut(Model):
    image: DigestText
    layer: Layer


class LayerList(Model):
    items: list[LayerOut]


class RecordedDecision(Model):
    id: int
    policy: str
    policy_version: int
    environment: str
    verdict: Verdict
    undecided: bool
    decided_at: datetime
    decision: DecisionOut


class DecisionPage(Model):
    items: list[RecordedDecision]
    next_cursor: str | None


class ReportQuery(Model):
    format: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] | None = Field(
        None, description="Id of a report format. Default: by the Accept header, otherwise JSON."
    )


def _show_listed(item: listings.ListedImage) -> ListedOut:
    return ListedOut(
        project=item.project,
        repository=item.repository,
        tag=item.tag,
        digest=item.digest,
        verdict=item.verdict,
        undecided=item.undecided,
        vulnerabilities=Counts(**item.counts),
        fixable=item.fixable,
        failed_checks=item.failed_checks,
        incomplete=item.incomplete,
        size=item.size,
        scanned_at=item.scanned_at,
    )


def _newest_evidence(digest: str) -> ScanReport:
    """The newest evidence. 404 if it does not exist or belongs to another project."""
    with resources().database.read() as session:
        return listings.newest_report(session, digest, principal().projects)[1]


def _found_with_bases(digest: str) -> tuple[ScanReport, dict[Digest, BaseImage | None]]:
    with resources().database.read() as session:
        found = listings.newest_report(session, digest, principal().projects)[1]
        return found, _bases(session, found)


def _bases(session: Connection, found: ScanReport) -> dict[Digest, BaseImage | None]:
    """The base of each image, by current knowledge."""
    projects = principal().projects
    return {item.image.digest: bases.of(session, item, found.finished_at, projects) for item in found.images}


def _base(base: BaseImage | None) -> BaseOut | None:
    if base is None:
        return None
    names = ("reference", "digest", "source", "layers", "created", "newest", "outdated", "note")
    return BaseOut(**{name: getattr(base, name) for name in names})


@api.get("/images", responses={"200": ImagePage, **problems(404)})
@permission("read")
def index(query: ImageQuery) -> Response:
    """List images, last scanned first

    One item for every name of a digest.
    """
    with resources().database.read() as session:
        page = listings.list_images(
            session,
            principal().projects,
            listings.Filter(search=query.search, verdicts=tuple(query.verdict), repository=query.repository),
            cursor=query.cursor,
            limit=query.limit,
        )
    return answer(ImagePage(items=[_show_listed(item) for item in page.items], next_cursor=page.next_cursor))


@api.get("/images/<digest>", responses={"200": ImageOut, **problems(404)})
@permission("read")
def get(path: ImagePath) -> Response:
    """Read an image: platforms, names, decision"""
    with resources().database.read() as session:
        _, found = listings.newest_report(session, path.digest, principal().projects)
        names = listings.names(session, path.digest, principal().projects)
        row = gate.current_decision(session, path.digest, "", None, principal().projects)
        # Looked up now, not taken from the evidence: a later scan may be the first to know the base, or its tag may
        # have moved.
        known = _bases(session, found)
    parts = [
        PlatformImage(
            digest=item.image.digest,
            platform=str(item.image.platform),
            config_digest=item.image.config.digest,
            size=item.image.size,
            created=item.image.config.created,
            user=item.image.config.user,
            layers=len(item.image.layers),
            labels=dict(item.image.config.labels),
            engines=[f"{engine.engine} {engine.version}" for engine in item.engines],
            **_system(item),
            # What an engine left out counts like what we could not read: a client that looks for gaps must not have
            # to know who found them.
            incomplete=[*item.incomplete, *(gap for engine in item.engines for gap in engine.incomplete)],
            base=_base(known[item.image.digest]),
        )
        for item in found.images
    ]
    return answer(
        ImageOut(
            digest=path.digest,
            media_type=found.subject.media_type,
            names=[_show_listed(item) for item in names],
            images=parts,
            decision=DecisionOut.model_validate_json(row.document) if row else None,
            scanned_at=found.finished_at,
            dockwarden=found.dockwarden,
        )
    )


def _system(item: ImageReport) -> dict[str, Any]:
    # With two engines, one may not know the distribution.
    known = next((engine.coverage for engine in item.engines if engine.coverage.os_family), None)
    system = known.system if known else ""
    return {"system": system, "end_of_life": known.os_end_of_life if known else None}


@api.get("/images/<digest>/findings", responses={"200": FindingPage, **problems(404)})
@permission("read")
def findings(path: ImagePath, query: FindingQuery) -> Response:
    """List vulnerabilities, most severe first"""
    found, known = _found_with_bases(path.digest)
    chosen = [
        _show_finding(item.image, one, known[item.image.digest])
        for item in found.images
        for one in agreement.findings(item.engines)
        if (not query.severity or one.vulnerability.severity in query.severity)
        and query.fixable in (None, one.vulnerability.fixable)
        and query.package in (None, one.vulnerability.package)
        and (not query.status or one.vulnerability.status in query.status)
        and query.disputed in (None, one.disputed)
    ]
    # A total order, because the cursor is a position in it and every page sorts anew.
    chosen.sort(key=lambda f: (-f.vulnerability.severity.rank, f.vulnerability.package, f.vulnerability.id))
    items, cursor = _slice(chosen, query)
    return answer(FindingPage(items=items, next_cursor=cursor))


def _show_finding(image: Image, found: agreement.Finding, base: BaseImage | None) -> FindingOut:
    opinions = [
        OpinionOut(
            engine=opinion.engine,
            word=opinion.word,
            id=reported.id if reported else "",
            severity=reported.severity if reported else None,
            status=reported.status if reported else "",
            fixed_versions=list(reported.fixed_versions) if reported else [],
        )
        for opinion in found.opinions
        for reported in [opinion.vulnerability]
    ]
    origin = vulnerability_origin(found.vulnerability, image, base)
    return FindingOut(
        image=image.digest, vulnerability=found.vulnerability, opinions=opinions, disputed=found.disputed, origin=origin
    )


@api.get("/images/<digest>/components", responses={"200": ComponentPage, **problems(404)})
@permission("read")
def components(path: ImagePath, query: ComponentQuery) -> Response:
    """List the packages in the image"""
    parts = _newest_evidence(path.digest).images
    if query.attached:
        found = [
            ComponentOut(image=item.image.digest, component=component, attached=sbom.digest)
            for item in parts
            for sbom in item.attached
            for component in sbom.components
        ]
    else:
        found = [
            ComponentOut(image=item.image.digest, component=component, attached=None)
            for item in parts
            for component in agreement.components(item.engines)
        ]
    items, cursor = _slice(found, query)
    return answer(ComponentPage(items=items, next_cursor=cursor))


@api.get("/images/<digest>/checks", responses={"200": CheckList, **problems(404)})
@permission("read")
def checks(path: ImagePath) -> Response:
    """List the results of checks of image and registry, and secrets found by content (redacted)"""
    found, known = _found_with_bases(path.digest)
    results: list[tuple[Digest | None, CheckResult]] = [(i.image.digest, c) for i in found.images for c in i.checks]
    results += [(None, result) for result in found.posture]
    secrets = [secret for item in found.images for engine in item.engines for secret in engine.secrets]
    return answer(
        CheckList(
            items=[_check(image, result, known.get(image) if image else None) for image, result in results],
            secrets=secrets,
        )
    )


def _check(image: str | None, result: CheckResult, base: BaseImage | None) -> CheckOut:
    # Evidence outlives checks. One of another version that has no class any more is shown with what was stored.
    check = catalog.checks().get(result.check)
    outcome = result.outcome
    remedy = outcome.remedy if isinstance(outcome, Failed) and outcome.remedy else check.remedy if check else ""
    severity = outcome.severity if isinstance(outcome, Failed) and outcome.severity else result.severity
    title = check.title if check else result.check
    origins = (
        [evidence_origin(item, base) for item in outcome.evidence] if isinstance(outcome, Failed) and image else []
    )
    return CheckOut(
        image=image, check=result.check, title=title, severity=severity, remedy=remedy, outcome=outcome, origins=origins
    )


@api.get("/images/<digest>/signatures", responses={"200": SignatureList, **problems(404)})
@permission("read")
def signatures(path: ImagePath) -> Response:
    """List the result of each signature scheme"""
    items = [
        SignatureOut(image=item.image.digest, verification=v)
        for item in _newest_evidence(path.digest).images
        for v in item.verifications
    ]
    return answer(SignatureList(items=items))


@api.get("/images/<digest>/layers", responses={"200": LayerList, **problems(404)})
@permission("read")
def layers(path: ImagePath) -> Response:
    """List the layers, base first, with the instructions that created them"""
    items = [
        LayerOut(image=item.image.digest, layer=x)
        for item in _newest_evidence(path.digest).images
        for x in item.image.layers
    ]
    return answer(LayerList(items=items))


@api.get("/images/<digest>/decisions", responses={"200": DecisionPage, **problems(404)})
@permission("read")
def decisions(path: ImagePath, query: PageQuery) -> Response:
    """List all decisions about the image, newest first"""
    with resources().database.read() as session:
        # Only for its 404. An empty page would not tell a digest without decisions from one of another project.
        listings.newest_report(session, path.digest, principal().projects)
        page = listings.decisions(session, path.digest, principal().projects, cursor=query.cursor, limit=query.limit)
    items = [
        RecordedDecision(
            id=d.id,
            policy=d.policy,
            policy_version=d.policy_version,
            environment=d.environment,
            verdict=d.verdict,
            undecided=d.undecided,
            decided_at=d.decided_at,
            decision=DecisionOut.model_validate_json(d.document),
        )
        for d in page.items
    ]
    return answer(DecisionPage(items=items, next_cursor=page.next_cursor))


@api.get(
    "/images/<digest>/report",
    responses={"200": {"description": "the report", "content": {"*/*": {"schema": {}}}}, **problems(404, 406)},
)
@permission("read")
def report(path: ImagePath, query: ReportQuery) -> Response:
    """Read evidence and decision in a report format

    `format` is an id of the catalogue. Without it, the Accept header decides.
    """
    with resources().database.read() as session:
        _, found = listings.newest_report(session, path.digest, principal().projects)
        row = gate.current_decision(session, path.digest, "", None, principal().projects)
    renderer = catalog.reports()[_format(query.format)]
    text = renderer.render(ReportSubject(found, parse_decision(row.document) if row else None))
    file = f"{Digest(path.digest).short}.{renderer.extension}"
    # A download: an HTML report quotes the image's own texts and must not open as a page of this origin.
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(text, headers=headers, content_type=f"{renderer.media_type}; charset=utf-8")


def _format(asked: str | None) -> str:
    """The format's id. 406 if it is unknown, or if the Accept header excludes all formats."""
    formats = catalog.reports()
    if asked is not None:
        if asked not in formats:
            raise UsageError(
                f"there is no report format {asked!r}",
                reason="not_acceptable",
                hint="use one of: " + ", ".join(formats),
            )
        return asked
    by_type = {renderer.media_type: identifier for identifier, renderer in formats.items()}
    by_type["application/json"] = "json"
    if not request.accept_mimetypes:
        return "json"
    # JSON first, so that `*/*`, which most clients send, gets it.
    best = request.accept_mimetypes.best_match(["application/json", *by_type])
    if best is None:
        raise UsageError("no report format matches the Accept header", reason="not_acceptable", hint=", ".join(by_type))
    return by_type[best]


Item = TypeVar("Item")


def _slice(items: Sequence[Item], query: Offset) -> tuple[list[Item], str | None]:
    start = int(query.cursor or 0)
    end = start + query.limit
    return list(items[start:end]), str(end) if end < len(items) else None
