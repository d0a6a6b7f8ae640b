"""Enforcement: whether admission is asked, what it denied today, and how to set it up."""

from __future__ import annotations

from flask import Blueprint, request

from scanner.services.admissions import Outcome
from scanner.store import admissions
from web.auth import everywhere, permission
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.resources import resources

bp = Blueprint("enforcement_page", __name__)
NAVIGATION = NavigationItem(60, "enforcement_page.index", "Enforcement", "audit")


@bp.get("/enforcement")
@permission("audit")
def index() -> str:
    """Admission reviews, newest first, narrowed by outcome and namespace."""
    everywhere()
    outcome, namespace = request.args.get("outcome", ""), request.args.get("namespace", "").strip()[:253]
    if outcome not in set(Outcome):
        outcome = ""
    with resources().database.read() as session:
        found = admissions.list_(
            session, outcome=outcome, namespace=namespace, cursor=request.args.get("cursor"), limit=PAGE_SIZE
        )
        figures, last = admissions.figures(session), admissions.last(session)
    template = "enforcement_list.html" if request.headers.get("HX-Request") else "enforcement.html"
    return page(
        template,
        found=found,
        figures=figures,
        last=last,
        outcome=outcome,
        namespace=namespace,
        outcomes=list(Outcome),
        server=resources().settings.public_url or request.host_url.rstrip("/"),
        here=here,
    )
