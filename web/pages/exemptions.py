"""The exemption pages: request, review, revoke."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from flask import Blueprint, Response, make_response, redirect, request, url_for
from sqlalchemy.engine import Connection

from scanner.model.actor import Actor
from scanner.services import exemptions as use_cases
from scanner.store import exemptions, listings, projects
from web.auth import permission, principal
from web.pages import export
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.pages.forms import RefusedForm, attempt, end_of_day, plain_lines
from web.resources import resources

bp = Blueprint("exemptions_page", __name__)
NAVIGATION = NavigationItem(60, "exemptions_page.index", "Exemptions", "read")

SOON = timedelta(days=14)
_AFFECTED = 2000  # images of one project that have a vulnerability
_COLUMNS = (
    "id",
    "project",
    "images",
    "rule",
    "subject",
    "purl",
    "justification",
    "state",
    "owner",
    "requested_at",
    "expires_at",
    "decided_by",
    "decided_at",
    "ended_by",
    "ended_at",
    "note",
)


@bp.get("/exemptions")
@permission("read")
def index() -> str | Response:
    """List exemptions, newest first, with a tab per state."""
    chosen = request.args.get("state", "")
    states = (chosen,) if chosen in exemptions.STATES else ()
    with resources().database.read() as session:
        found = exemptions.list_exemptions(
            session, principal().projects, states=states, cursor=request.args.get("cursor"), limit=PAGE_SIZE
        )
        counts = exemptions.counts(session, principal().projects)
    if wanted := export.requested_format():
        rows = [{name: getattr(item, name) for name in _COLUMNS} for item in found.items]
        return export.answer("exemptions", _COLUMNS, rows, wanted)
    return page(
        "exemptions.html",
        found=found,
        counts=counts,
        chosen=chosen,
        states=exemptions.STATES,
        here=here,
        soon=datetime.now(UTC) + SOON,
    )


@bp.get("/exemptions/new")
@permission("propose")
def new() -> str:
    """Show the request form. The link on a violation fills it through the query string.

    With ``affected`` it names every repository of the project that has the vulnerability ``subject``.
    """
    values = {name: request.args.get(name, "")[:1000] for name in ("project", "images", "rule", "subject", "purl")}
    if request.args.get("affected") == "1" and not values["images"]:
        # A caller of no project sees an empty set, which must not be mistaken for None, every project.
        projects_of_page = frozenset({values["project"]} if principal().sees(values["project"]) else ())
        with resources().database.read() as session:
            _, found = listings.affected_images(session, values["subject"], projects_of_page, limit=_AFFECTED)
        values["images"] = "\n".join(dict.fromkeys(item.repository or item.digest for item in found))
    return _form(values)


@bp.post("/exemptions")
@permission("propose")
def create() -> Response:
    """Create a request. A refused form comes back as typed, with the reasons."""
    given = {
        name: plain_lines(request.form.get(name, ""))
        for name in ("project", "rule", "subject", "purl", "justification")
    }
    exploited = request.form.get("exploited") == "yes"  # shown after a request was refused with would_lapse
    values = {
        **given,
        "exploited": "yes" if exploited else "",
        "images": request.form.get("images", "").strip(),
        "until": request.form.get("until", ""),
    }

    def ask() -> exemptions.ExemptionView:
        ends = end_of_day(values["until"], "until")
        wanted = use_cases.NewExemption(
            images=values["images"].split(),
            justification=given["justification"],
            expires_at=ends,
            project=given["project"],
            rule=given["rule"],
            subject=given["subject"],
            purl=given["purl"],
            until_exploited=not exploited,
        )
        with resources().database.session() as session:
            return use_cases.request(session, principal(), wanted)

    try:
        found = attempt(ask)
    except RefusedForm as refused:
        return make_response(_form(values, refused.problems, refused.fields), 422)
    return redirect(url_for("exemptions_page.one", exemption_id=found.id), 303)  # type: ignore[return-value]


@bp.get("/exemptions/<uuid:exemption_id>")
@permission("read")
def one(exemption_id: UUID) -> str:
    """Show one exemption, its possible actions and the images it applies to."""
    return _exemption(exemption_id)


def _exemption(exemption_id: UUID, note: str = "", problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    with resources().database.read() as session:
        found = exemptions.get(session, str(exemption_id), principal().projects)
        concerned = [
            item
            for name in found.images[:10]
            if "*" not in name
            for item in listings.list_images(
                session, frozenset({found.project}), listings.Filter(search=name), limit=20
            ).items
        ]
    who = principal()
    own = found.owner_id == who.person.id
    return page(
        "exemption.html",
        found=found,
        concerned=concerned,
        own=own,
        note=note,
        note_length=use_cases.NOTE_LENGTH,
        problems=problems,
        wrong=wrong,
        # What the use case would refuse is not offered: nobody decides about their own request, and a token decides
        # nothing.
        decides=who.may("triage") and bool(who.user_id) and not own,
        ends=who.may("propose") and (own or who.may("triage")),
        soon=datetime.now(UTC) + SOON,
    )


@bp.post("/exemptions/<uuid:exemption_id>/approve")
@permission("triage")
def approve(exemption_id: UUID) -> Response:
    """Approve a request of another person."""
    return _decide(exemption_id, use_cases.approve)


@bp.post("/exemptions/<uuid:exemption_id>/reject")
@permission("triage")
def reject(exemption_id: UUID) -> Response:
    """Reject a request."""
    return _decide(exemption_id, use_cases.reject)


@bp.post("/exemptions/<uuid:exemption_id>/revoke")
@permission("propose")
def revoke(exemption_id: UUID) -> Response:
    """Revoke an exemption."""
    return _decide(exemption_id, use_cases.revoke)


def _decide(exemption_id: UUID, act: Callable[[Connection, Actor, str, str], exemptions.ExemptionView]) -> Response:
    """Run the use case with the note. A refused note comes back as typed."""
    note = plain_lines(request.form.get("note", ""))

    def work() -> object:
        with resources().database.session() as session:
            return act(session, principal(), str(exemption_id), note)

    try:
        attempt(work)
    except RefusedForm as refused:
        return make_response(_exemption(exemption_id, note, refused.problems, refused.fields), refused.status)
    return redirect(url_for("exemptions_page.one", exemption_id=exemption_id), 303)  # type: ignore[return-value]


def _form(values: dict[str, str], problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    with resources().database.read() as session:
        offered = projects.list_projects(session, principal().projects)
    latest = datetime.now(UTC).date() + exemptions.LONGEST
    suggested = datetime.now(UTC).date() + timedelta(days=30)
    filled = {"project": "default", "justification": "", **values}
    filled["until"] = values.get("until") or suggested.isoformat()
    return page("exemption_new.html", values=filled, problems=problems, wrong=wrong, offered=offered, latest=latest)
