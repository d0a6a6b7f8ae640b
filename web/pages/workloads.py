"""Workloads: what runs where, worst first; the page of one has its findings with lines and remedies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, redirect, request, url_for

from scanner import catalog
from scanner.model.finding import CheckResult, Failed, Incomplete
from scanner.services import inventory as use_cases
from scanner.store import inventory, saved_views
from web.auth import permission, principal
from web.pages import export
from web.pages.base import PAGE_SIZE, NavigationItem, here, page, query_of
from web.resources import resources

bp = Blueprint("workloads_page", __name__)
NAVIGATION = NavigationItem(25, "workloads_page.index", "Workloads", "read")

PAGE = "workloads"  # of saved views
_FILTERS = frozenset(
    {"q", "environment", "source", "namespace", "image", "owner", "check", "digest", "verdict", "sort"}
)
VERDICTS = ("deny", "undecided", "warn", "allow")
_COLUMNS = (
    "name",
    "environment",
    "source",
    "source_name",
    "project",
    "namespace",
    "kind",
    "owner",
    "image",
    "digest",
    "overall",
    "verdict",
    "undecided",
    "image_verdict",
    "image_undecided",
    "first_seen",
    "image_since",
    "reported_at",
)
_SELECTS = ("environment", "source", "namespace", "image", "owner", "check")


@dataclass(frozen=True)
class CheckFinding:
    """A failed or incomplete check, prepared for the page."""

    result: CheckResult
    title: str
    remedy: str
    lines: Sequence[tuple[str, str]]  # sentence and its location

    @property
    def failed(self) -> bool:
        return isinstance(self.result.outcome, Failed)


@bp.get("/workloads")
@permission("read")
def index() -> str | Response:
    """List running workloads, worst first. htmx requests get only the list; with ``format`` the shown page is
    answered as a file.
    """
    who, narrowed, sort = principal(), _read_filter(), request.args.get("sort", "")[:20]
    with resources().database.read() as session:
        found = inventory.list_workloads(
            session, who.projects, narrowed, sort=sort, cursor=request.args.get("cursor"), limit=PAGE_SIZE
        )
        if wanted := export.requested_format():
            rows = [{name: getattr(item, name) for name in _COLUMNS} for item in found.items]
            return export.answer("workloads", _COLUMNS, rows, wanted)
        counts = inventory.facets(session, who.projects)
        sources = inventory.sources(session, who.projects)
        views = saved_views.list_views(session, who.id, PAGE)
    template = "workloads_list.html" if request.headers.get("HX-Request") else "workloads.html"
    return page(
        template,
        found=found,
        narrowed=narrowed,
        filtered=narrowed != inventory.Filter(),
        counts=counts,
        sources=sources,
        source_names={each.id: f"{each.name} ({each.source})" for each in sources},
        selects=_SELECTS,
        chosen={name: request.args.get(name, "") for name in _SELECTS},
        verdicts=VERDICTS,
        views=views,
        sort=sort,
        query=query_of(_FILTERS),
        total=sum(counts["environment"].values()),
        may_remove=who.may("manage") and who.projects is None,
        here=here,
    )


@bp.post("/workloads/sources/<uuid:source_id>/remove")
@permission("manage")
def remove_source(source_id: UUID) -> Response:
    """Remove a source that no longer exists, with its workloads. Images and their evidence are kept."""
    principal().require_every_project()
    with resources().database.session() as session:
        use_cases.remove(session, principal(), str(source_id))
    return redirect(url_for("workloads_page.index"), 303)  # type: ignore[return-value]


@bp.get("/workloads/<uuid:workload_id>")
@permission("read")
def one(workload_id: UUID) -> str:
    """Show one workload: both verdicts with reasons, findings with lines and remedies, and whether its tag has
    moved.
    """
    with resources().database.read() as session:
        found = use_cases.detail(session, principal(), str(workload_id))
    return page(
        "workload.html",
        row=found.row,
        found=found,
        decision=found.decision,
        findings=_findings(found),
        passed=sum(1 for result in found.results if result.outcome.kind == "passed"),
        here=here,
    )


def _read_filter() -> inventory.Filter:
    """Parse the filters from the query string. Unknown choices are ignored."""
    given = request.args
    return inventory.Filter(
        search=given.get("q", "").strip()[:200],
        environment=given.get("environment", "")[:64],
        source=given.get("source", "")[:36],
        namespace=given.get("namespace", "")[:200],
        verdicts=tuple(v for v in VERDICTS if v in given.getlist("verdict")),
        image=given.get("image", "")[:600],
        owner=given.get("owner", "")[:200],
        check=given.get("check", "")[:64],
        digest=given.get("digest", "")[:140],
    )


def _findings(found: use_cases.Detail) -> list[CheckFinding]:
    """Failed checks, worst first, then incomplete ones. A remedy is in the language of the source (e.g. Kubernetes)."""
    known = catalog.workload_checks()
    rows = []
    for result in found.results:
        outcome, check = result.outcome, known.get(result.check)
        title = check.title if check else result.check
        if isinstance(outcome, Failed):
            remedy = outcome.remedy or (check.remedies.get(found.row.source, check.remedy) if check else "")
            lines = [(each.message.removeprefix(f"{found.row.name}: "), _place(each)) for each in outcome.evidence]
            rows.append(CheckFinding(result, title, remedy, lines))
        elif isinstance(outcome, Incomplete):
            rows.append(CheckFinding(result, title, "", [(outcome.detail or outcome.reason, "")]))
    return sorted(rows, key=lambda row: (not row.failed, -_severity(row.result).rank, row.title))


def _severity(result: CheckResult) -> Any:
    return (result.outcome.severity if isinstance(result.outcome, Failed) else None) or result.severity


def _place(evidence: Any) -> str:
    where = evidence.path or ""
    return f"{where}:{evidence.line}" if where and evidence.line else where or evidence.pointer
