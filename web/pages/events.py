"""The events page: webhook deliveries and their outcome."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, redirect, request, url_for

from scanner import queue
from scanner.model.scan import Lane
from scanner.services import scans as use_cases
from scanner.services import webhooks as webhook_cases
from scanner.store import deliveries, reconciliation
from web.auth import permission, principal
from web.pages import export
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.resources import resources

bp = Blueprint("events_page", __name__)
NAVIGATION = NavigationItem(80, "events_page.index", "Events", "read")


_LOST_SHOWN = 10
_COLUMNS = ("id", "received_at", "host", "webhook", "format", "events", "outcome")


@bp.get("/events")
@permission("read")
def index() -> str | Response:
    """List webhook deliveries, newest first."""
    with resources().database.read() as session:
        found = deliveries.list_deliveries(
            session, principal().projects, cursor=request.args.get("cursor"), limit=PAGE_SIZE
        )
        lost = reconciliation.list_found_tags(session, principal().projects, limit=_LOST_SHOWN)
    if wanted := export.requested_format():
        rows = [{name: getattr(item, name) for name in _COLUMNS} for item in found.items]
        return export.answer("events", _COLUMNS, rows, wanted)
    return page("events.html", found=found, lost=() if "cursor" in request.args else lost.items, here=here)


@bp.post("/events/<uuid:delivery_id>/replay")
@permission("scan")
def replay(delivery_id: UUID) -> Response:
    """Queue the scans of a delivery again."""
    with resources().database.session() as session:
        tickets = use_cases.replay(session, principal(), str(delivery_id))
    for ticket, former in tickets:
        if ticket.created:
            queue.enqueue(resources().celery, ticket.scan_id, former.request.lane)
    return redirect(url_for("scans_page.one", scan_id=tickets[0][0].scan_id), 303)  # type: ignore[return-value]


@bp.post("/events/<uuid:delivery_id>/alias")
@permission("manage")
def add_alias(delivery_id: UUID) -> Response:
    """Add the host of refused events as a registry alias and scan the announced images."""
    own, host = resources(), request.form.get("host", "")
    tickets = own.database.uncrossed(
        lambda session: webhook_cases.add_alias(
            session, principal(), own.secret_key, str(delivery_id), host, own.settings.engine
        )
    )
    for ticket in tickets:
        if ticket.created:
            queue.enqueue(own.celery, ticket.scan_id, Lane.PUSH)
    return redirect(url_for("events_page.index"), 303)  # type: ignore[return-value]
