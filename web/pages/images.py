"""The image pages: the list with search and filters, and one image with its verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson
from flask import Blueprint, Response, redirect, request, url_for
from sqlalchemy.engine import Connection

from scanner import catalog, queue
from scanner.errors import NotFoundError, UsageError
from scanner.model import agreement, versions
from scanner.model.finding import Component, Severity, Vulnerability
from scanner.model.image import instruction
from scanner.model.lineage import BaseImage, Origin, count, evidence_origin, vulnerability_origin
from scanner.model.reference import Reference
from scanner.model.scan import ImageReport, Lane, ScanReport, ScanRequest
from scanner.services import scans as scan_use_cases
from scanner.store import bases, gate, inventory, listings, saved_views, tags
from web.auth import SIGNED_IN, permission, principal
from web.pages import export
from web.pages.base import PAGE_SIZE, NavigationItem, here, megabytes, page
from web.pages.charts import Part, Segment, bar
from web.resources import engine_for, resources, take_scan

bp = Blueprint("images_page", __name__)
NAVIGATION = NavigationItem(20, "images_page.index", "Images", "read")

VERDICTS = ("allow", "warn", "deny", "undecided")
SEVERITIES = ("critical", "high", "medium", "low", "unknown")
_FILTERS = frozenset(
    {
        "q",
        "verdict",
        "severity",
        "project",
        "registry",
        "fixable",
        "exploited",
        "signer",
        "base",
        "running",
    }
)
STATUSES = {
    "will_not_fix": "will not be fixed",
    "fix_deferred": "fix deferred",
    "under_investigation": "under investigation",
    "end_of_life": "release is end of life",
}
TABS = ("vulnerabilities", "checks", "signatures", "components", "layers", "history")
_ROWS = 2000
_TAGS_SHOWN, _MOVES_SHOWN = 5, 20


@dataclass(frozen=True)
class PackageRow:
    """The vulnerabilities of one package version, highest severity first."""

    name: str
    version: str
    items: tuple[Vulnerability, ...]
    layer: int | None
    instruction: str
    origin: Origin

    @property
    def worst(self) -> Severity:
        return max((v.severity for v in self.items), key=lambda s: s.rank)

    @property
    def fixes(self) -> tuple[str, ...]:
        """The lowest version that fixes every fixable vulnerability. Empty if none is fixable."""
        to = versions.common_upgrade(self.version, [v.fixed_versions for v in self.items])
        return (to,) if to else ()

    @property
    def without_fix(self) -> tuple[str, ...]:
        """The distribution's status of vulnerabilities without a fix."""
        return tuple(dict.fromkeys(STATUSES.get(v.status, "no fix yet") for v in self.items if not v.fixable))


@bp.get("/images")
@permission("read")
def index() -> str | Response:
    """List all images, last scanned first.

    htmx requests get only the list; with ``format`` the shown page is answered as a file.
    """
    who, narrowed = principal(), _narrowed()
    with resources().database.read() as session:
        found = listings.list_(session, who.projects, narrowed, cursor=request.args.get("cursor"), limit=PAGE_SIZE)
        counts = listings.facets(session, who.projects)
        environments = inventory.facets(session, who.projects)["environment"]
        views = saved_views.list_(session, who.id)
    if wanted := export.asked():
        return export.answer("images", _ROWS_OF_LIST, [_row(item) for item in found.items], wanted)
    template = "images_list.html" if request.headers.get("HX-Request") else "images.html"
    return page(
        template,
        environments=environments,
        found=found,
        narrowed=narrowed,
        filtered=narrowed != listings.Filter(),
        counts=counts,
        verdicts=VERDICTS,
        severities=SEVERITIES,
        here=here,
        total=sum(counts.verdicts.values()),
        unsigned=listings.UNSIGNED,
        views=views,
        query=_query(),
    )


@bp.post("/images/views")
@permission(SIGNED_IN)
def save_view() -> Response:
    """Save the filters as a named view of the current user."""
    name, query = request.form.get("name", "").strip()[:60], request.form.get("query", "")[:1000]
    if not name:
        raise UsageError("enter a name for the view", reason="invalid")
    with resources().database.session() as session:
        saved_views.put(session, principal().id, name, query)
    return redirect(url_for("images_page.index") + "?" + query, 303)  # type: ignore[return-value]


@bp.post("/images/views/remove")
@permission(SIGNED_IN)
def remove_view() -> Response:
    """Delete a view."""
    with resources().database.session() as session:
        saved_views.remove(session, principal().id, request.form.get("name", ""))
    return redirect(url_for("images_page.index"), 303)  # type: ignore[return-value]


_ROWS_OF_LIST = (
    "project",
    "repository",
    "tag",
    "digest",
    "verdict",
    "undecided",
    "critical",
    "high",
    "medium",
    "low",
    "unknown",
    "fixable",
    "exploited",
    "failed_checks",
    "incomplete",
    "signer",
    "base",
    "scanned_at",
)


def _row(item: listings.ListedImage) -> dict[str, Any]:
    plain = {name: getattr(item, name) for name in _ROWS_OF_LIST if name not in item.counts}
    return {**plain, **item.counts}


def _narrowed() -> listings.Filter:
    """Parse the filters from the query string. Unknown values are ignored."""
    given = request.args
    return listings.Filter(
        search=given.get("q", "").strip()[:200],
        verdicts=tuple(v for v in VERDICTS if v in given.getlist("verdict")),
        severities=tuple(s for s in SEVERITIES if s in given.getlist("severity")),
        project=given.get("project", "")[:64],
        host=given.get("registry", "")[:261],
        fixable=given.get("fixable") == "1",
        exploited=given.get("exploited") == "1",
        signer=given.get("signer", "")[:200],
        base=given.get("base", "")[:600],
        running_in=given.get("running", "")[:64],
    )


def _query() -> str:
    """The filters as a query string, without the cursor."""
    return urlencode([(name, value) for name, value in request.args.items(multi=True) if name in _FILTERS and value])


@bp.post("/images/scan")
@permission("scan")
def scan_now() -> Response:
    """Queue a scan of the typed reference and show its progress."""
    text = request.form.get("image", "").strip()
    reference = Reference.parse(text)
    with resources().database.read() as session:
        project = scan_use_cases.project_of(session, principal(), None, reference)
    take_scan(project)
    wanted = ScanRequest(
        str(reference),
        None,
        engine_for(project),
        Lane.GATE,
        request.form.get("force") == "1",
        project=project,
        source="page",
    )
    with resources().database.session() as session:
        ticket, _ = scan_use_cases.request(session, principal(), wanted)
    if ticket.created:
        queue.enqueue(resources().celery, ticket.scan_id, wanted.lane)
    return redirect(url_for("scans_page.one", scan_id=ticket.scan_id), 303)  # type: ignore[return-value]


@bp.get("/images/<digest>")
@permission("read")
def one(digest: str) -> str:
    """Show one image: verdict, reasons, and one tab of evidence."""
    projects = principal().projects
    tab = request.args.get("tab", "vulnerabilities")
    if tab not in TABS:
        raise NotFoundError("unknown tab")
    with resources().database.read() as session:
        report_id, report = listings.newest_report(session, digest, projects)
        names = listings.names(session, digest, projects)
        running = inventory.running_in(session, [digest], projects).get(digest, {})
        history = listings.decisions(
            session, digest, projects, cursor=request.args.get("cursor") if tab == "history" else None, limit=PAGE_SIZE
        )
        moves = _tag_history(session, names, projects) if tab == "history" else {}
        decided = gate.current_decision(session, digest, "", None, projects)
        number = _platform(report)
        item = report.images[number] if report.images else None
        base = bases.of(session, item, report.finished_at, projects) if item else None
    decision = orjson.loads(decided.document) if decided else None
    return page(
        "image.html",
        running=running,
        digest=digest,
        report=report,
        report_id=report_id,
        names=names,
        history=history,
        moves=moves,
        decision=decision,
        tab=tab,
        tabs=TABS,
        item=item,
        number=number,
        packages=_packages(item, base),
        components=_components(item),
        disputes=_disputes(item),
        unseen=agreement.unseen,
        formats=catalog.reports(),
        catalog=catalog.checks(),
        rows=_ROWS,
        instruction=instruction,
        here=here,
        reasons=_reasons(decision),
        segments=_layers(item),
        base=base,
        whose=_whose(item, base),
        origin_of=lambda evidence: evidence_origin(evidence, base),
    )


def _tag_history(
    session: Connection, names: Sequence[listings.ListedImage], projects: frozenset[str] | None
) -> dict[str, tuple[tags.TagMove, ...]]:
    """What the first tags of an image named, by repository:tag, the newest first."""
    named = [(item.repository, item.tag) for item in names if item.tag][:_TAGS_SHOWN]
    return {
        f"{repository}:{tag}": tags.history(session, projects, repository=repository, tag=tag, limit=_MOVES_SHOWN).items
        for repository, tag in named
    }


@bp.get("/images/<digest>/report")
@permission("read")
def download(digest: str) -> Response:
    """Download the full report in any format."""
    from scanner.reports.base import ReportSubject

    name = request.args.get("format", "json")
    formats = catalog.reports()
    if name not in formats:
        raise UsageError(f"unknown format {name!r}", hint="use one of " + ", ".join(formats))
    with resources().database.read() as session:
        _, report = listings.newest_report(session, digest, principal().projects)
    text = formats[name].render(ReportSubject(report))
    headers = {
        "Content-Disposition": "attachment; "
        f'filename="image-{digest.removeprefix("sha256:")[:12]}.{formats[name].extension}"'
    }
    return Response(text, mimetype=formats[name].media_type, headers=headers)


def _layers(item: ImageReport | None) -> Sequence[Segment]:
    """The layers as one bar. Two colours alternate so that neighbours differ."""
    parts = [
        Part(
            ("even", "odd")[layer.index % 2],
            f"layer {layer.index}: {megabytes(layer.size)}, {instruction(layer.created_by)[:80]}",
            layer.size,
        )
        for layer in (item.image.layers if item else ())
    ]
    return bar(parts)


def _platform(report: ScanReport) -> int:
    """Return the position of the shown image in the index."""
    asked = request.args.get("platform", "")
    return next((n for n, item in enumerate(report.images) if str(item.image.platform) == asked), 0)


def _whose(item: ImageReport | None, base: BaseImage | None) -> Mapping[Origin, int]:
    """Count vulnerabilities by origin: base image or this image."""
    found = agreement.findings(item.engines) if item else ()
    return count(vulnerability_origin(one.vulnerability, item.image, base) for one in found) if item else {}


def _packages(item: ImageReport | None, base: BaseImage | None) -> list[PackageRow]:
    grouped: dict[tuple[str, str], list[Vulnerability]] = defaultdict(list)
    for v in (found.vulnerability for found in agreement.findings(item.engines if item else ())):
        grouped[v.package, v.installed_version].append(v)
    rows = []
    for (name, version), found in grouped.items():
        layer = item.image.layer_of(found[0].layer) if item else None
        ranked = tuple(sorted(found, key=lambda v: (-v.severity.rank, v.id)))
        rows.append(
            PackageRow(
                name,
                version,
                ranked,
                layer.index if layer else None,
                instruction(layer.created_by) if layer else "",
                vulnerability_origin(found[0], item.image, base) if item else Origin.UNKNOWN,
            )
        )
    return sorted(rows, key=lambda row: (-row.worst.rank, -len(row.items), row.name))


def _components(item: ImageReport | None) -> Sequence[Component]:
    return sorted(agreement.components(item.engines if item else ()), key=lambda c: (c.type, c.name))


def _disputes(item: ImageReport | None) -> Sequence[agreement.Finding]:
    """Findings that the engines disagree on, highest severity first."""
    found = [f for f in agreement.findings(item.engines if item else ()) if f.disputed]
    return sorted(found, key=lambda f: (-f.vulnerability.severity.rank, f.vulnerability.package))


def _reasons(decision: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Group reasons by rule. Each unknown is shown once, however many rules it affects."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for reason in decision["reasons"] if decision else ():
        key = (
            reason["message"] if reason["kind"] == "incomplete" else reason["rule"],
            reason["action"],
            reason["kind"],
        )
        group = groups.setdefault(key, {**reason, "items": []})
        group["items"].append(reason)
    return list(groups.values())
