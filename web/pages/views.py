"""Saved views: a name for the filters of a list, for their user only."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, request, url_for

from scanner.errors import UsageError
from scanner.store import saved_views
from web.auth import SIGNED_IN, permission, principal
from web.resources import resources

bp = Blueprint("views_page", __name__)

# The lists whose filters can be saved. A view leads only to one of these.
LISTS = {
    "images": "images_page.index",
    "vulnerabilities": "vulnerabilities_page.index",
    "workloads": "workloads_page.index",
}


@bp.post("/views")
@permission(SIGNED_IN)
def save() -> Response:
    """Save the filters of a list as a named view of the current user."""
    name, query = request.form.get("name", "").strip()[:60], request.form.get("query", "")[:1000]
    endpoint = _list()
    if not name:
        raise UsageError("enter a name for the view", reason="invalid")
    with resources().database.session() as session:
        saved_views.put(session, principal().id, request.form["list"], name, query)
    return redirect(url_for(endpoint) + "?" + query, 303)  # type: ignore[return-value]


@bp.post("/views/remove")
@permission(SIGNED_IN)
def remove() -> Response:
    """Delete a view."""
    endpoint = _list()
    with resources().database.session() as session:
        saved_views.remove(session, principal().id, request.form["list"], request.form.get("name", ""))
    return redirect(url_for(endpoint), 303)  # type: ignore[return-value]


def _list() -> str:
    endpoint = LISTS.get(request.form.get("list", ""))
    if endpoint is None:
        raise UsageError("unknown list", reason="invalid", hint="use one of " + ", ".join(LISTS))
    return endpoint
