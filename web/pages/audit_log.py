"""The audit log for people: who did what, when, from where."""

from __future__ import annotations

from flask import Blueprint, request

from scanner.store import audit
from web.auth import everywhere, permission
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.services import services

bp = Blueprint("audit_log_page", __name__)
NAVIGATION = NavigationItem(90, "audit_log_page.index", "Audit log", "audit")


@bp.get("/audit-log")
@permission("audit")
def index() -> str:
    """Entries, newest first."""
    everywhere()
    with services().database.read() as session:
        found = audit.list_(session, cursor=request.args.get("cursor"), limit=PAGE_SIZE)
    return page("audit_log.html", found=found, here=here)
