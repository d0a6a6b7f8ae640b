"""The trust page: trust roots and the Docker Content Trust report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner import catalog
from scanner.services import trust_roots
from scanner.store import trust
from web.auth import everywhere, permission, principal
from web.pages.base import NavigationItem, page
from web.pages.forms import RefusedForm, attempt, showable
from web.resources import resources

bp = Blueprint("trust_page", __name__)
NAVIGATION = NavigationItem(82, "trust_page.index", "Trust", "read")


@bp.get("/trust")
@permission("read")
def index() -> str:
    """Show trust roots and the Content Trust report per repository."""
    return _render()


@bp.post("/trust/roots")
@permission("policy")
def add() -> Response:
    """Add or change a trust root. A refused form comes back as typed."""
    everywhere()
    given = {name: request.form.get(name, "") for name in ("name", "scheme", "scope", "document")}

    def write() -> None:
        with resources().database.session() as session:
            trust_roots.write(
                session,
                given["name"].strip(),
                given["scheme"],
                given["document"],
                given["scope"].split(),
                principal(),
                where="what to trust",
            )

    try:
        attempt(write)
    except RefusedForm as refused:
        return make_response(_render(given, refused.problems, refused.fields), 422)
    return redirect(url_for("trust_page.index"), 303)  # type: ignore[return-value]


@bp.post("/trust/roots/<name>/remove")
@permission("policy")
def remove(name: str) -> Response:
    """Remove a trust root."""
    everywhere()
    with resources().database.session() as session:
        trust_roots.remove(session, name, principal())
    return redirect(url_for("trust_page.index"), 303)  # type: ignore[return-value]


def _render(kept: Mapping[str, str] | None = None, problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    with resources().database.read() as session:
        found = trust.list_roots(session)
        repositories = trust_roots.depends_on_notary(session, principal().projects)
    may_write = principal().may("policy") and principal().projects is None
    return page(
        "trust.html",
        found=found,
        repositories=repositories,
        schemes=catalog.schemes(),
        may_write=may_write,
        kept=showable(kept),
        problems=problems,
        wrong=wrong,
    )
