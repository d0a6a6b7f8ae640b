"""Vulnerabilities across the fleet: search them, and see every image that one of them touches."""

from __future__ import annotations

from flask import Blueprint, request

from scanner.store import images, vulnerabilities
from web.auth import permission, principal
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.services import services

bp = Blueprint("vulnerabilities_page", __name__)
NAVIGATION = NavigationItem(30, "vulnerabilities_page.index", "Vulnerabilities", "read")

SEVERITIES = ("critical", "high", "medium", "low", "unknown")


@bp.get("/vulnerabilities")
@permission("read")
def index() -> str:
    """What touches the images that the person may see, worst first. A search from the keyboard swaps the list only."""
    search = request.args.get("q", "").strip()[:200]
    chosen = [name for name in request.args.getlist("severity") if name in SEVERITIES]
    cursor = request.args.get("cursor")
    with services().database.read() as session:
        found = vulnerabilities.list_(
            session, principal().projects, search=search, severities=chosen, cursor=cursor, limit=PAGE_SIZE
        )
    template = "vulnerabilities_list.html" if request.headers.get("HX-Request") else "vulnerabilities.html"
    return page(template, found=found, search=search, chosen=chosen, severities=SEVERITIES, here=here)


@bp.get("/vulnerabilities/<name>")
@permission("read")
def one(name: str) -> str:
    """An advisory, and every image it touches."""
    with services().database.read() as session:
        advisory, affected = images.affected(session, name, principal().projects)
    return page("vulnerability.html", advisory=advisory, affected=affected)
