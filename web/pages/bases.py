"""The page of base images: which have a newer image, and what to rebuild."""

from __future__ import annotations

from flask import Blueprint, request

from scanner.store import base_watch
from web.auth import permission, principal
from web.pages.base import PAGE_SIZE, here, page
from web.resources import resources

bp = Blueprint("bases_page", __name__)
_LISTED = 100


@bp.get("/images/bases")
@permission("read")
def index() -> str:
    """List base images that current images name."""
    with resources().database.read() as session:
        found = base_watch.list_watched(
            session, principal().projects, cursor=request.args.get("cursor"), limit=PAGE_SIZE
        )
    order = ("newer", "unknown", "current")
    items = sorted(found.items, key=lambda item: order.index(item.state))
    return page(
        "bases.html",
        found=found,
        items=items,
        listed=_LISTED,
        interval=resources().settings.bases_interval_hours,
        here=here,
    )
