"""The vulnerability pages: search, and all images that one vulnerability affects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner.errors import NotFoundError, UsageError
from scanner.model.vex import VexStatus
from scanner.policy.openvex import JUSTIFICATIONS
from scanner.services import vex as vex_use_cases
from scanner.store import inventory, listings, overview, saved_views, vex, vulnerabilities
from web.auth import permission, principal
from web.pages import export
from web.pages.base import PAGE_SIZE, NavigationItem, here, page, query_of
from web.pages.forms import RefusedForm, attempt, plain_lines
from web.resources import resources

bp = Blueprint("vulnerabilities_page", __name__)
NAVIGATION = NavigationItem(30, "vulnerabilities_page.index", "Vulnerabilities", "read")

PAGE = "vulnerabilities"  # of saved views
_FILTERS = frozenset({"q", "severity", "fixable", "exploited", "new", "sort"})
_MOST = 500
_RUNNING = 200
_COLUMNS = ("project", "repository", "tag", "digest", "package", "version", "fixable", "verdict", "first_seen")
_STATUSES = {
    "not_affected": "not affected: the vulnerability cannot be exploited here",
    "fixed": "fixed: the images contain a fix that the engine does not recognise",
    "under_investigation": "under investigation",
    "affected": "affected: action is needed",
}
SEVERITIES = ("critical", "high", "medium", "low", "unknown")


@bp.get("/vulnerabilities")
@permission("read")
def index() -> str | Response:
    """List vulnerabilities of visible images, highest severity first, then the newest. htmx requests get the list
    only.
    """
    given, who = request.args, principal()
    narrowed = vulnerabilities.Filter(
        search=given.get("q", "").strip()[:200],
        severities=tuple(name for name in SEVERITIES if name in given.getlist("severity")),
        fixable=given.get("fixable") == "1",
        exploited=given.get("exploited") == "1",
        new=overview.NEW if given.get("new") == "1" else None,
    )
    sort = given.get("sort", "")[:20]
    with resources().database.read() as session:
        found = vulnerabilities.list_vulnerabilities(
            session, who.projects, narrowed, sort=sort, cursor=given.get("cursor"), limit=PAGE_SIZE
        )
        views = saved_views.list_views(session, who.id, PAGE)
    if wanted := export.requested_format():
        columns = ("name", "severity", "title", "images", "fixable", "fixes", "exploited", "published")
        rows = [
            {column: getattr(item, column) for column in columns} | {"fixes": " ".join(item.fixes)}
            for item in found.items
        ]
        return export.answer("vulnerabilities", columns, rows, wanted)
    template = "vulnerabilities_list.html" if request.headers.get("HX-Request") else "vulnerabilities.html"
    return page(
        template,
        found=found,
        narrowed=narrowed,
        filtered=narrowed != vulnerabilities.Filter(),
        sort=sort,
        severities=SEVERITIES,
        views=views,
        query=query_of(_FILTERS),
        here=here,
    )


@bp.get("/vulnerabilities/<name>")
@permission("read")
def one(name: str) -> str | Response:
    """Show an advisory and every affected image."""
    with resources().database.read() as session:
        advisory, affected = listings.affected_images(session, name, principal().projects, limit=_MOST + 1)
        running, environments, touched = inventory.affected_workloads(
            session, name, principal().projects, limit=_RUNNING
        )
        statements = vex.about(session, name, principal().projects)
    shown = affected[:_MOST]
    if wanted := export.requested_format():
        rows = [{column: getattr(item, column) for column in _COLUMNS} for item in shown]
        # The name of the file is in a header, and the vulnerability's name is what an advisory says.
        return export.answer(
            name if name.isascii() and name.replace("-", "").isalnum() else "vulnerability", _COLUMNS, rows, wanted
        )
    owners = Counter(item.project for item in shown)
    return page(
        "vulnerability.html",
        advisory=advisory,
        more=VulnerabilityDetails.of(advisory["document"]),
        affected=shown,
        truncated=len(affected) > _MOST,
        owners=owners,
        statements=statements,
        # The name goes into an expression. One with a quote could end the string and add a condition of its own.
        condition=f'event.vulnerability == "{name}"' if name.replace("-", "").isalnum() else "",
        running=running,
        environments=environments,
        touched=touched,
        most_running=_RUNNING,
        here=here,
    )


@bp.get("/vulnerabilities/<name>/vex")
@permission("triage")
def new_statement(name: str) -> str:
    """Show the form for a VEX statement."""
    return _statement(name, {"status": "not_affected", "project": request.args.get("project", "")[:64]})


@bp.post("/vulnerabilities/<name>/vex")
@permission("triage")
def make_statement(name: str) -> Response:
    """State whether the affected images of a project are really affected. Decisions are then renewed."""
    fields = ("project", "status", "justification", "impact", "scope")
    values = {field: plain_lines(request.form.get(field, ""))[:2000] for field in fields}

    def work() -> object:
        if values["status"] not in list(VexStatus):
            raise UsageError("choose a status", reason="invalid", field="status")
        status = VexStatus(values["status"])
        texts = (values["justification"], values["impact"])
        wanted = vex_use_cases.NewStatement(name, values["project"], status, *texts, values["scope"] == "packages")
        with resources().database.session() as session:
            return vex_use_cases.state(session, principal(), wanted)

    try:
        attempt(work)
    except RefusedForm as refused:
        return make_response(_statement(name, values, refused.problems, refused.fields), 422)
    return redirect(url_for("vulnerabilities_page.one", name=name) + "#vex", 303)  # type: ignore[return-value]


def _statement(name: str, values: Mapping[str, str], problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    with resources().database.read() as session:
        advisory, affected = listings.affected_images(session, name, principal().projects, limit=_MOST)
    owners = Counter(item.project for item in affected)
    if not owners:
        raise NotFoundError("no scanned image has such a vulnerability")
    return page(
        "vulnerability_vex.html",
        advisory=advisory,
        owners=owners,
        values=values,
        problems=problems,
        wrong=wrong,
        statuses=_STATUSES,
        justifications={each: each.replace("_", " ") for each in JUSTIFICATIONS},
    )


@dataclass(frozen=True)
class VulnerabilityDetails:
    """Details of a vulnerability. None means not looked up, which is not the same as no."""

    known_exploited: bool | None
    epss: float | None
    cvss: tuple[tuple[str, str, float, str], ...]  # version, vector, score, source
    aliases: tuple[str, ...]
    cwes: tuple[str, ...]
    references: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> VulnerabilityDetails:
        """Parse the stored document. Older versions stored fewer fields."""
        lists = {name: tuple(document.get(name) or ()) for name in ("aliases", "cwes", "references")}
        scores = tuple(
            (str(v), str(vector), float(score), str(source)) for v, vector, score, source in document.get("cvss") or ()
        )
        return cls(document.get("known_exploited"), document.get("epss"), scores, **lists)
