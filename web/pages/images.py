"""The image pages: the list with search and filters, and one image with its verdict."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from flask import Blueprint, Response, make_response, redirect, request, url_for
from sqlalchemy.engine import Connection

from scanner import catalog, queue
from scanner.errors import NotFoundError, UsageError
from scanner.model import agreement
from scanner.model.decision import Change
from scanner.model.image import MOST_PATHS, instruction
from scanner.model.lineage import BaseImage, Origin, count, evidence_origin, vulnerability_origin
from scanner.model.reference import Reference
from scanner.model.scan import ImageReport, Lane, ScanReport, ScanRequest
from scanner.services import scans as scan_use_cases
from scanner.services.gate import environment_in_force
from scanner.store import bases, gate, inventory, listings, overview, saved_views, tags
from scanner.store import receipts as stored_receipts
from web.auth import permission, principal
from web.pages import export, findings
from web.pages.base import PAGE_SIZE, NavigationItem, here, megabytes, page, query_of, size
from web.pages.charts import Part, Segment, bar, tree
from web.pages.forms import RefusedForm, attempt
from web.pages.receipt_rows import receipt_rows
from web.resources import engine_for, resources, take_scan

bp = Blueprint("images_page", __name__)
NAVIGATION = NavigationItem(20, "images_page.index", "Images", "read")

PAGE = "images"  # of saved views
VERDICTS = ("allow", "warn", "deny", "undecided")
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
        "denied_in",
        "new",
        "sort",
    }
)
TABS = ("vulnerabilities", "checks", "signatures", "components", "layers", "history", "receipts")
_NARROWED = ("vulnerabilities", "checks", "components")  # tabs with filters, sorting and pages
_TAGS_SHOWN, _MOVES_SHOWN = 5, 20


@bp.get("/images")
@permission("read")
def index() -> str | Response:
    """List all images, last scanned first.

    htmx requests get only the list; with ``format`` the shown page is answered as a file.
    """
    return _list()


def _list(typed: str = "", problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str | Response:
    """The list; ``typed``: the reference that was refused, for ``problems``."""
    who, narrowed, sort = principal(), _read_filter(), request.args.get("sort", "")[:20]
    with resources().database.read() as session:
        narrowed = replace(narrowed, denied_in=_denied_in(session))
        found = listings.list_images(
            session, who.projects, narrowed, sort=sort, cursor=request.args.get("cursor"), limit=PAGE_SIZE
        )
        counts = listings.facets(session, who.projects)
        environments = inventory.facets(session, who.projects)["environment"]
        views = saved_views.list_views(session, who.id, PAGE)
        failed = 0 if counts.verdicts else overview.given_up(session, who.projects)
    if wanted := export.requested_format():
        return export.answer("images", _ROWS_OF_LIST, [_row(item) for item in found.items], wanted)
    template = "images_list.html" if request.headers.get("HX-Request") else "images.html"
    return page(
        template,
        environments=environments,
        failed=failed,
        found=found,
        narrowed=narrowed,
        filtered=narrowed != listings.Filter(),
        sort=sort,
        production=overview.PRODUCTION,
        denied_in=request.args.get("denied_in", ""),
        counts=counts,
        verdicts=VERDICTS,
        severities=findings.SEVERITIES,
        here=here,
        total=sum(counts.verdicts.values()),
        unsigned=listings.UNSIGNED,
        views=views,
        query=query_of(_FILTERS),
        typed=typed,
        problems=problems,
        wrong=wrong,
    )


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


def _read_filter() -> listings.Filter:
    """Parse the filters from the query string. Unknown values are ignored."""
    given = request.args
    return listings.Filter(
        search=given.get("q", "").strip()[:200],
        verdicts=tuple(v for v in VERDICTS if v in given.getlist("verdict")),
        severities=tuple(s for s in findings.SEVERITIES if s in given.getlist("severity")),
        project=given.get("project", "")[:64],
        host=given.get("registry", "")[:261],
        fixable=given.get("fixable") == "1",
        exploited=given.get("exploited") == "1",
        signer=given.get("signer", "")[:200],
        base=given.get("base", "")[:600],
        running_in=given.get("running", "")[:64],
        new=overview.NEW if given.get("new") == "1" else None,
    )


def _denied_in(session: Connection) -> str | None:
    """The environment whose decisions the filter *denied in* asks for. None: no such filter."""
    wanted = request.args.get("denied_in", "")[:64]
    return environment_in_force(session, wanted) if wanted else None


@bp.post("/images/scan")
@permission("scan")
def scan_now() -> Response:
    """Queue a scan of the typed reference and show its progress."""
    text = request.form.get("image", "").strip()
    try:
        reference = attempt(lambda: Reference.parse(text))
    except RefusedForm as refused:
        return make_response(_list(text[:1024], refused.problems, {"image"}), 422)
    with resources().database.read() as session:
        project = scan_use_cases.project_of(session, principal(), None, reference)
    # The rate limit of the API counts here as well; a script could use the form.
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
    # After the commit: a worker that is faster would find no row.
    if ticket.created:
        queue.enqueue(resources().celery, ticket.scan_id, wanted.lane)
    return redirect(url_for("scans_page.one", scan_id=ticket.scan_id), 303)  # type: ignore[return-value]


@bp.get("/images/<digest>")
@permission("read")
def one(digest: str) -> str:
    """Show one image: verdict, reasons, and one tab of evidence. htmx requests get only the rows of the tab."""
    tab = request.args.get("tab", "vulnerabilities")
    if tab not in TABS:
        raise NotFoundError("unknown tab")
    return image_page(digest, tab)


def image_page(
    digest: str,
    tab: str,
    kept: Mapping[str, str] | None = None,
    problems: Sequence[str] = (),
    wrong: Collection[str] = (),
) -> str:
    """Render the page of an image. ``kept``: what a refused form of the tab had."""
    projects = principal().projects
    with resources().database.read() as session:
        report_id, report = listings.newest_report(session, digest, projects)
        names = listings.names(session, digest, projects)
        running = inventory.running_in(session, [digest], projects).get(digest, {})
        history = listings.decisions(
            session, digest, projects, cursor=request.args.get("cursor") if tab == "history" else None, limit=PAGE_SIZE
        )
        # Only what the tab shows is read: an image with many decisions has a long history.
        moves = _tag_history(session, names, projects) if tab == "history" else {}
        receipts = receipt_rows(session, digest, projects) if tab == "receipts" else ()
        decided_in = stored_receipts.repositories(session, digest, projects) if tab == "receipts" else ()
        decided = gate.current_decision(session, digest, "", None, projects)
        number = _platform(report)
        item = report.images[number] if report.images else None
        base = bases.of(session, item, report.finished_at, projects) if item else None
    decision = orjson.loads(decided.document) if decided else None
    asked = findings.FindingQuery.of(request.args)
    only_rows = request.headers.get("HX-Request") and tab in _NARROWED
    return page(
        f"image_{tab}_list.html" if only_rows else "image.html",
        running=running,
        digest=digest,
        report=report,
        report_id=report_id,
        names=names,
        history=history,
        moves=moves,
        steps=_steps(decision),
        receipts=receipts,
        kept=kept or {},
        problems=problems,
        wrong=wrong,
        # For the commands on the page, which are copied to other machines.
        server_url=(resources().settings.public_url or request.host_url).rstrip("/"),
        decided_in=decided_in,
        decision=decision,
        tab=tab,
        tabs=TABS,
        item=item,
        number=number,
        asked=asked,
        found=_rows(tab, item, report, base, asked),
        counts=findings.severities(item),
        outcomes=_outcomes(item, report),
        disputes=_disputes(item) if tab == "vulnerabilities" else (),
        tab_counts=_tab_counts(item, report),
        quoted=shlex.join,
        again=_scan_again(names, digest),
        tree=tree,
        bytes=size,
        severities=findings.SEVERITIES,
        most_paths=MOST_PATHS,
        unseen=agreement.unseen,
        formats=catalog.reports(),
        catalog=catalog.checks(),
        instruction=instruction,
        here=here,
        reasons=_reasons(decision),
        segments=_layers(item),
        base=base,
        whose=_counts_by_origin(item, base),
        origin_of=lambda evidence: evidence_origin(evidence, base),
    )


def _rows(
    tab: str, item: ImageReport | None, report: ScanReport, base: BaseImage | None, asked: findings.FindingQuery
) -> findings.Rows[Any] | None:
    """The shown rows of the tabs that are narrowed, sorted and cut into pages."""
    if tab == "vulnerabilities":
        return findings.packages(item, base, asked)
    if tab == "components":
        return findings.components(item, asked)
    if tab == "checks":
        titles = {name: check.title for name, check in catalog.checks().items()}
        return findings.checks((*(item.checks if item else ()), *report.posture), titles, asked)
    return None


def _outcomes(item: ImageReport | None, report: ScanReport) -> Mapping[str, int]:
    """Count the checks by outcome."""
    return Counter(result.outcome.kind for result in (*(item.checks if item else ()), *report.posture))


def _tab_counts(item: ImageReport | None, report: ScanReport) -> Mapping[str, int]:
    """The numbers beside the names of the tabs: findings and failed checks, packages, layers."""
    if item is None:
        return {}
    return {
        "vulnerabilities": len(agreement.findings(item.engines)),
        "checks": _outcomes(item, report)["failed"],
        "components": len(agreement.components(item.engines)),
        "layers": len(item.image.layers),
    }


def _scan_again(names: Sequence[listings.ListedImage], digest: str) -> str:
    """The reference that scans this very image again. Empty: no registry has it."""
    name = next((item.name for item in names if item.repository), "")
    return f"{name}@{digest}" if name else ""


def _steps(decision: Mapping[str, Any] | None) -> list[str]:
    """What to do, each step as a sentence. A stored decision is JSON, without the properties of `Change`."""
    changes = decision["changes"] if decision else ()
    return [Change(each["action"], each["target"], each["detail"]).text for each in changes]


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
            f"#layer-{layer.index}",
        )
        for layer in (item.image.layers if item else ())
    ]
    return bar(parts)


def _platform(report: ScanReport) -> int:
    """Return the position of the shown image in the index."""
    asked = request.args.get("platform", "")
    return next((n for n, item in enumerate(report.images) if str(item.image.platform) == asked), 0)


def _counts_by_origin(item: ImageReport | None, base: BaseImage | None) -> Mapping[Origin, int]:
    """Count vulnerabilities by origin: base image or this image."""
    found = agreement.findings(item.engines) if item else ()
    return count(vulnerability_origin(one.vulnerability, item.image, base) for one in found) if item else {}


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
