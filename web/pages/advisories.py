"""Advisories: how old what is known is, and how it is renewed."""

from __future__ import annotations

from contextlib import suppress

from flask import Blueprint, Response, redirect, request, url_for

from scanner.advisories import sources
from scanner.errors import ConflictError
from scanner.services import jobs as job_use_cases
from scanner.services import revocations as revocation_use_cases
from scanner.store import jobs, matches, revocations
from web.auth import permission, principal
from web.pages.base import NavigationItem, page
from web.services import services

bp = Blueprint("advisories_page", __name__)
NAVIGATION = NavigationItem(65, "advisories_page.index", "Advisories", "read")


@bp.get("/advisories")
@permission("read")
def index() -> str:
    """Each source, the last updates and re-matches, and what was revoked."""
    settings = services().settings
    with services().database.read() as session:
        last, figures, revoked = jobs.list_(session, jobs.KINDS), matches.figures(session), revocations.list_(session)
    return page(
        "advisories.html",
        sources=sources.overview(settings),
        jobs=last,
        figures=figures,
        revocations=revoked,
        moment=sources.moment,
        may_change=principal().may("manage") and principal().projects is None,
        engine=settings.engine,
    )


@bp.post("/advisories/update")
@permission("manage")
def update() -> Response:
    """Ask for an update, which a worker does."""
    return _ask(jobs.UPDATE, jobs.ANYWHERE, {})


@bp.post("/advisories/rematch")
@permission("manage")
def rematch() -> Response:
    """Ask for a re-match, which a worker does."""
    engine = services().settings.engine
    return _ask(jobs.REMATCH, f"{engine}:{jobs.ANYWHERE}", {"engine": engine})


def _ask(kind: str, key: str, parameters: dict[str, object]) -> Response:
    with services().database.session() as session:
        job_use_cases.request(session, principal(), kind, key, parameters)
    return redirect(url_for("advisories_page.index"), 303)  # type: ignore[return-value]


@bp.post("/advisories/jobs/<uuid:job_id>/cancel")
@permission("manage")
def cancel(job_id: object) -> Response:
    """Stop a job."""
    with services().database.session() as session, suppress(ConflictError):  # it ended meanwhile: the list says so
        job_use_cases.cancel(session, principal(), str(job_id))
    return redirect(url_for("advisories_page.index"), 303)  # type: ignore[return-value]


@bp.post("/advisories/revocations")
@permission("manage")
def revoke() -> Response:
    """Believe an engine's version or a digest no more."""
    form = {name: request.form.get(name, "").strip() for name in ("engine", "version", "digest", "reason")}
    what = revocations.named(form["engine"], form["version"], form["digest"])
    with services().database.session() as session:
        revocation_use_cases.revoke(session, principal(), what, form["reason"])
    return redirect(url_for("advisories_page.index"), 303)  # type: ignore[return-value]


@bp.post("/advisories/revocations/<uuid:revocation_id>/lift")
@permission("manage")
def lift(revocation_id: object) -> Response:
    """Believe it again."""
    with services().database.session() as session:
        revocation_use_cases.lift(session, principal(), str(revocation_id))
    return redirect(url_for("advisories_page.index"), 303)  # type: ignore[return-value]
