"""The scan pages: queued, running, failed and given-up scans."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, redirect, request, url_for

from scanner import queue
from scanner.model.scan import ScanState, Stage
from scanner.services import scans as use_cases
from scanner.store import overview, scans
from web.auth import permission, principal
from web.pages import export
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.resources import resources

bp = Blueprint("scans_page", __name__)
NAVIGATION = NavigationItem(40, "scans_page.index", "Scans", "read")

_FILTERS = {
    "active": (ScanState.QUEUED, ScanState.RUNNING, ScanState.RETRY_WAIT),
    "failed": (ScanState.FAILED,),
    "dead": (ScanState.DEAD,),
    "done": (ScanState.DONE,),
}


@bp.get("/scans")
@permission("read")
def index() -> str | Response:
    """List scans, newest first. The list refreshes while a scan is active."""
    chosen = request.args.get("state", "")
    with resources().database.read() as session:
        found = scans.list_scans(
            session,
            principal().projects,
            states=_FILTERS.get(chosen, ()),
            only_unrepeated=chosen == "unrepeated",
            cursor=request.args.get("cursor"),
            limit=PAGE_SIZE,
        )
        by_state = scans.counts(session, principal().projects)
        unrepeated = overview.given_up(session, principal().projects)
    if wanted := export.requested_format():
        return export.answer("scans", _COLUMNS, [_row(scan) for scan in found.items], wanted)
    active = any(not scan.state.terminal for scan in found.items)
    counts = {name: sum(by_state.get(state, 0) for state in states) for name, states in _FILTERS.items()}
    counts["unrepeated"] = unrepeated
    template = "scans_list.html" if request.headers.get("HX-Request") else "scans.html"
    return page(template, found=found, chosen=chosen, filters=counts, counts=counts, active=active, here=here)


_COLUMNS = (
    "id",
    "target",
    "state",
    "reason",
    "message",
    "lane",
    "engine",
    "project",
    "requested_by",
    "source",
    "digest",
    "created_at",
    "finished_at",
)


def _row(scan: scans.ScanView) -> dict[str, object]:
    asked = ("target", "lane", "engine", "project", "requested_by", "source")
    return {name: getattr(scan.request if name in asked else scan, name) for name in _COLUMNS}


@bp.get("/scans/<uuid:scan_id>")
@permission("read")
def one(scan_id: UUID) -> str:
    """Show one scan: stage and progress while it runs, then outcome and attempts."""
    with resources().database.read() as session:
        scan = scans.get(session, str(scan_id), principal().projects)
        attempts = scans.attempts(session, str(scan_id))
    template = "scan_state.html" if request.headers.get("HX-Request") else "scan.html"
    return page(
        template,
        scan=scan,
        attempts=attempts,
        stages=[stage for stage in Stage if stage not in (Stage.VERIFY, Stage.POSTURE)],
    )


@bp.post("/scans/<uuid:scan_id>/rescan")
@permission("scan")
def rescan(scan_id: UUID) -> Response:
    """Queue a new scan of the same image."""
    with resources().database.session() as session:
        ticket, again = use_cases.rescan(session, principal(), str(scan_id))
    if ticket.created:
        queue.enqueue(resources().celery, ticket.scan_id, again.request.lane)
    return redirect(url_for("scans_page.one", scan_id=ticket.scan_id), 303)  # type: ignore[return-value]


@bp.post("/scans/<uuid:scan_id>/cancel")
@permission("scan")
def cancel(scan_id: UUID) -> Response:
    """Cancel a scan."""
    with resources().database.session() as session:
        use_cases.cancel(session, principal(), str(scan_id))
    return redirect(url_for("scans_page.one", scan_id=scan_id), 303)  # type: ignore[return-value]
