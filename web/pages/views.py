"""Saved views: a name for the filters of a list, for their user only."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, Response, g, redirect, request, url_for

from scanner.errors import UsageError
from scanner.store import saved_views
from web.auth import SIGNED_IN, permission, principal
from web.pages import once
from web.pages.forms import RefusedForm, attempt
from web.resources import resources

bp = Blueprint("views_page", __name__)
bp.record_once(lambda state: state.app.jinja_env.globals.__setitem__("refused_view", refused_view))

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
    target = url_for(_list()) + "?" + query

    def work() -> None:
        if not name:
            raise UsageError("enter a name for the view", reason="invalid", field="name")
        with resources().database.session() as session:
            saved_views.put(session, principal().id, request.form["list"], name, query)

    try:
        attempt(work)
    except RefusedForm as refused:
        # The form is a part of the list, which another page shows: it gets the name and the problem once.
        kept = {"view": name, "view_problem": refused.problems[0]}
        return once.carry(redirect(target + "#view", 303), kept)  # type: ignore[arg-type]
    return redirect(target, 303)  # type: ignore[return-value]


@bp.post("/views/remove")
@permission(SIGNED_IN)
def remove() -> Response:
    """Delete a view."""
    endpoint = _list()
    with resources().database.session() as session:
        saved_views.remove(session, principal().id, request.form["list"], request.form.get("name", ""))
    return redirect(url_for(endpoint), 303)  # type: ignore[return-value]


def refused_view() -> Mapping[str, str]:
    """For the form that saves a view: the name that was refused, and why. Empty if none was."""
    found = once.carried_values()
    g.refused_view = "view_problem" in found
    return found if g.refused_view else {}


@bp.after_app_request
def _shown(response: Response) -> Response:
    return once.drop(response) if g.get("refused_view") else response


def _list() -> str:
    endpoint = LISTS.get(request.form.get("list", ""))
    if endpoint is None:
        raise UsageError("unknown list", reason="invalid", hint="use one of " + ", ".join(LISTS))
    return endpoint
