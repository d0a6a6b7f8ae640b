"""Policies: the current ones, their versions with differences, and an editor that shows errors and the effect of a
change.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner import catalog
from scanner.errors import ConflictError, NotFoundError, UsageError
from scanner.policy.rules import Policy, PolicyError, Problem, default_policy
from scanner.policy.schema import policy_schema
from scanner.policy.starting_points import starting_points
from scanner.services import dry_runs, simulation, trust_roots
from scanner.services import policies as use_cases
from scanner.store import dry_runs as stored
from scanner.store import policies
from web.auth import everywhere, permission, principal
from web.pages.base import PAGE_SIZE, NavigationItem, page
from web.pages.forms import RefusedForm, attempt, end_of_day
from web.resources import resources

bp = Blueprint("policies_page", __name__)
NAVIGATION = NavigationItem(50, "policies_page.index", "Policies", "read")

_ASKED_SECONDS = 2.0  # before a user who saves is asked, images and workloads each
_START = "production"


@dataclass(frozen=True)
class DiffLine:
    """A line of a comparison: ``kind`` is same, added, removed or hunk."""

    kind: str
    text: str


@bp.get("/policies")
@permission("read")
def index() -> str:
    """List the policies and show the default policy."""
    with resources().database.read() as session:
        found = policies.list_policies(session, principal().projects)
    return page("policies.html", found=found, fallback=default_policy(catalog.known_names()))


@bp.get("/policies/new")
@permission("policy")
def new() -> str:
    """Open the editor with a starting point: the one that was chosen, or the one for production."""
    found = {each.name: each for each in starting_points(catalog.known_names())}
    chosen = found.get(request.args.get("start", ""), found[_START])
    return _editor(chosen.text, "0", "", start=chosen.name)


@bp.get("/policies/editor/schema.json")
@permission("read")
def schema() -> Response:
    """The JSON Schema of policies, for the editor's completion and help, and for other editors."""
    titles = {identifier: check.title for identifier, check in catalog.checks().items()}
    with resources().database.read() as session:
        known = trust_roots.known_to_authors(session)
    return Response(orjson.dumps(policy_schema(known, titles)), mimetype="application/schema+json")


@bp.get("/policies/<name>")
@permission("read")
def one(name: str) -> str:
    """Show one version of a policy and its difference from another version."""
    with resources().database.read() as session:
        versions = policies.versions(session, name, principal().projects)
    shown = _chosen_version(versions, "version") or versions[0]
    former = _chosen_version(versions, "against") or next((v for v in versions if v.version < shown.version), None)
    difference = list(_difference(former, shown)) if former else []
    return page(
        "policy.html", current=versions[0], shown=shown, former=former, difference=difference, versions=versions
    )


@bp.get("/policies/<name>/edit")
@permission("policy")
def edit(name: str) -> str:
    """Open the editor with the newest version."""
    with resources().database.read() as session:
        current = policies.get(session, name, projects=principal().projects)
    return _editor(current.text, str(current.version), name)


@bp.post("/policies/validate")
@permission("read")
def validate() -> str:
    """Validate the text in the editor while the user types."""
    _, problems = _parse_draft(_text())
    return page("policy_problems.html", problems=problems, checked=True)


@bp.post("/policies/dry-run")
@permission("read")
def dry_run() -> str | Response:
    """Start a dry run of the text in the editor: which images and running workloads it would newly deny or allow."""
    text = _text()
    parsed, problems = _parse_draft(text)
    if parsed is None:
        if request.headers.get("HX-Request"):
            return page("policy_problems.html", problems=problems, checked=True)
        version, name = request.form.get("version", "0"), request.form.get("name", "")
        return make_response(_editor(text, version, name, problems), 422)
    try:
        view = attempt(lambda: _start(text, request.form.get("as_of", "")))
    except RefusedForm as refused:
        problems = [Problem(0, 0, "", each) for each in refused.problems]
        if request.headers.get("HX-Request"):
            return page("policy_problems.html", problems=problems, checked=True)
        version, name = request.form.get("version", "0"), request.form.get("name", "")
        return make_response(_editor(text, version, name, problems), 422)
    if request.headers.get("HX-Request"):
        return _result(view.run.id, "policy_dry_run.html", **_edited_version())
    return _to_result(view)


@bp.get("/policies/dry-runs/<uuid:dry_run_id>")
@permission("read")
def dry_run_result(dry_run_id: UUID) -> str:
    """Show a dry run: the share that was examined, and what would change. The page refreshes while it runs."""
    template = "policy_dry_run.html" if request.headers.get("HX-Request") else "policy_dry_run_page.html"
    version = request.args.get("version")
    return _result(
        str(dry_run_id),
        template,
        version=version if version is not None and _number(version) >= 0 else None,
        name=request.args.get("name", "")[:64] or None,
        asks=request.args.get("asks") == "1",
    )


@bp.post("/policies/dry-runs/<uuid:dry_run_id>/cancel")
@permission("read")
def cancel_dry_run(dry_run_id: UUID) -> Response:
    """Cancel a dry run."""
    try:
        with resources().database.session() as session:
            dry_runs.cancel(session, principal(), str(dry_run_id))
    except ConflictError:
        pass  # it ended meanwhile: the page shows how
    return redirect(url_for("policies_page.dry_run_result", dry_run_id=dry_run_id), 303)  # type: ignore[return-value]


@bp.post("/policies/text")
@permission("policy")
def resume() -> str:
    """Open the editor with a text that is not saved yet."""
    return _editor(_text(), request.form.get("version", "0"), request.form.get("name", ""))


@bp.post("/policies")
@permission("policy")
def save() -> Response:
    """Save a new version. It takes effect at once.

    If it would newly deny something, the user is asked first. If it is refused, the editor shows the typed text again,
    with the reasons.
    """
    everywhere()
    text, version = _text(), request.form.get("version", "0")
    parsed, problems = _parse_draft(text)
    edited = _number(version)
    name = request.form.get("name", "")
    if parsed is not None and name and parsed.name != name:
        problems = [Problem(0, 0, "metadata.name", f"policy {name!r} cannot be renamed: create a new one")]
    if parsed is None or problems:
        return make_response(_editor(text, version, name, problems), 422)
    if request.form.get("confirmed") != "1" and (known := _would_deny(parsed, text)):
        try:
            view = known if isinstance(known, dry_runs.View) else attempt(lambda: _start(text))
        except RefusedForm as refused:
            return make_response(_editor(text, version, name, [Problem(0, 0, "", p) for p in refused.problems]), 422)
        return _to_result(view, asks="1")
    try:
        with resources().database.session() as session:
            written = use_cases.write(session, principal(), parsed.name, text, if_version=edited)
    except ConflictError:
        return make_response(_editor(text, version, name, saved_meanwhile=True), 409)
    return redirect(url_for("policies_page.one", name=written.name), 303)  # type: ignore[return-value]


@bp.post("/policies/<name>/enabled")
@permission("policy")
def enable(name: str) -> Response:
    """Enable or disable a policy."""
    everywhere()
    with resources().database.session() as session:
        use_cases.set_enabled(session, principal(), name, request.form.get("enabled") == "1")
    return redirect(url_for("policies_page.one", name=name), 303)  # type: ignore[return-value]


def _would_deny(parsed: Policy, text: str) -> bool | dry_runs.View:
    """Return whether saving would newly deny something, or that cannot be excluded within a moment.

    A finished dry run of the same text and evidence answers for all images. If it denies something, it is returned, and
    shown with the question instead of a second one.
    """
    with resources().database.read() as session:
        who, most = principal().projects, simulation.MOST
        if finished := dry_runs.still_valid(session, principal(), text):
            return finished if finished.run.denied else False
        tried = simulation.simulate(session, parsed, who, most, seconds=_ASKED_SECONDS)
        if tried.newly_denied or tried.truncated:
            return True
        running = simulation.simulate_workloads(session, parsed, who, most, seconds=_ASKED_SECONDS)
    return bool(running.newly_denied) or running.truncated


def _start(text: str, day: str = "") -> dry_runs.View:
    as_of = end_of_day(day, "as_of").date() if day else None
    with resources().database.session() as session:
        return dry_runs.request(session, principal(), text, as_of=as_of)


def _edited_version() -> dict[str, Any]:
    """Which version the editor has open, for the links and forms of a result."""
    return {"version": request.form.get("version", "0"), "name": request.form.get("name", "") or None}


def _to_result(view: dry_runs.View, **more: Any) -> Response:
    target = url_for("policies_page.dry_run_result", dry_run_id=view.run.id, **_edited_version(), **more)
    return redirect(target, 303)  # type: ignore[return-value]


def _result(
    identifier: str, template: str, *, version: str | None = None, name: str | None = None, asks: bool = False
) -> str:
    narrowed = stored.Filter(project=request.args.get("project", ""), rule=request.args.get("rule", ""))
    with resources().database.read() as session:
        view, who = dry_runs.get(session, principal(), identifier), principal().projects
        found = stored.changes(session, identifier, who, narrowed, cursor=request.args.get("cursor"), limit=PAGE_SIZE)
        groups = stored.groups(session, identifier, who)
    return page(
        template, view=view, groups=groups, found=found, narrowed=narrowed, edited=version, name=name, asks=asks
    )


def _number(version: str) -> int:
    """The version that the editor has open; -1: not a version."""
    return int(version) if version.isascii() and version.isdigit() and len(version) < 10 else -1


def _text() -> str:
    """The text with LF line ends. Browsers send CRLF, and the digest of a policy must not depend on the browser."""
    return request.form.get("text", "").replace("\r\n", "\n")


def _parse_draft(text: str) -> tuple[Policy | None, Sequence[Problem]]:
    try:
        with resources().database.read() as session:
            return use_cases.parse(session, text), ()
    except PolicyError as error:
        return None, error.problems
    except UsageError as error:
        return None, [Problem(0, 0, "", str(error))]


def _editor(
    text: str,
    version: str,
    name: str,
    problems: Sequence[Problem] = (),
    *,
    saved_meanwhile: bool = False,
    start: str = "",
) -> str:
    return page(
        "policy_edit.html",
        text=text,
        edited=version,
        name=name,
        problems=problems,
        checked=False,
        saved_meanwhile=saved_meanwhile,
        starts=starting_points(catalog.known_names()) if start else (),
        start=start,
        today=datetime.now(UTC).date(),
        earliest=datetime.now(UTC).date() - timedelta(days=dry_runs.DAYS),
    )


def _chosen_version(versions: Sequence[policies.PolicyView], parameter: str) -> policies.PolicyView | None:
    asked = request.args.get(parameter, "")
    if not asked:
        return None
    found = next((v for v in versions if str(v.version) == asked), None)
    if found is None:
        raise NotFoundError("this version does not exist")
    return found


def _difference(former: policies.PolicyView, shown: policies.PolicyView) -> Iterator[DiffLine]:
    kinds = {"+": "added", "-": "removed", "@": "hunk"}
    lines = difflib.unified_diff(former.text.splitlines(), shown.text.splitlines(), lineterm="", n=3)
    for number, line in enumerate(lines):
        if number > 1:  # the first two name files
            yield DiffLine(kinds.get(line[0], "same"), line)
