"""The advisories page: age of each source, updates, re-matches and revocations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from flask import Blueprint, Response, redirect, request, url_for
from sqlalchemy.engine import Connection

from scanner.advisories import sources
from scanner.errors import ConflictError
from scanner.services import jobs as job_use_cases
from scanner.services import revocations as revocation_use_cases
from scanner.store import jobs, matches, revocations
from web.auth import permission, principal
from web.pages.base import NavigationItem, page
from web.pages.forms import RefusedForm, carry_out
from web.resources import resources

bp = Blueprint("advisories_page", __name__)
NAVIGATION = NavigationItem(82, "advisories_page.index", "Advisories", "read")


@bp.get("/advisories")
@permission("read")
def index() -> str:
    """Show each source, the latest jobs and the revocations."""
    return _render()


def _render(values: Mapping[str, str] | None = None, problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    settings = resources().settings
    with resources().database.read() as session:
        last, figures, revoked = (
            jobs.list_jobs(session, jobs.KINDS),
            matches.figures(session),
            revocations.list_revocations(session),
        )
    return page(
        "advisories.html",
        sources=sources.overview(settings),
        jobs=last,
        figures=figures,
        revocations=revoked,
        moment=sources.moment,
        may_change=principal().may("manage") and principal().projects is None,
        engine=settings.engine,
        values=values or {},
        problems=problems,
        wrong=wrong,
    )


@bp.post("/advisories/update")
@permission("manage")
def update() -> Response:
    """Queue an update. A worker runs it."""
    return _request(jobs.UPDATE, jobs.ANYWHERE, {})


@bp.post("/advisories/rematch")
@permission("manage")
def rematch() -> Response:
    """Queue a re-match. A worker runs it."""
    engine = resources().settings.engine
    return _request(jobs.REMATCH, f"{engine}:{jobs.ANYWHERE}", {"engine": engine})


def _request(kind: str, key: str, parameters: dict[str, object]) -> Response:
    with resources().database.session() as session:
        job_use_cases.request(session, principal(), kind, key, parameters)
    return redirect(url_for("advisories_page.index"), 303)  # type: ignore[return-value]


@bp.post("/advisories/jobs/<uuid:job_id>/cancel")
@permission("manage")
def cancel(job_id: object) -> Response:
    """Cancel a job."""
    with resources().database.session() as session, suppress(ConflictError):  # it has ended; the list shows that
        job_use_cases.cancel(session, principal(), str(job_id))
    return redirect(url_for("advisories_page.index"), 303)  # type: ignore[return-value]


@bp.post("/advisories/revocations")
@permission("manage")
def revoke() -> Response:
    """Revoke an engine version or a digest."""
    form = {name: request.form.get(name, "").strip() for name in ("engine", "version", "digest", "reason")}

    def work(session: Connection) -> None:
        what = revocations.parse_revoked(form["engine"], form["version"], form["digest"])
        revocation_use_cases.revoke(session, principal(), what, form["reason"])

    def again(refused: RefusedForm) -> str:
        return _render(form, refused.problems, refused.fields)

    return carry_out(work, again, url_for("advisories_page.index"))


@bp.post("/advisories/revocations/<uuid:revocation_id>/lift")
@permission("manage")
def lift(revocation_id: object) -> Response:
    """Lift a revocation."""
    with resources().database.session() as session:
        revocation_use_cases.lift(session, principal(), str(revocation_id))
    return redirect(url_for("advisories_page.index"), 303)  # type: ignore[return-value]
