"""Policies: the current ones, their versions with differences, and an editor that shows errors and the effect of a
change.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner import catalog
from scanner.errors import ConflictError, NotFoundError, UsageError
from scanner.policy.rules import Policy, PolicyError, Problem, default_policy
from scanner.services import policies as use_cases
from scanner.services import simulation
from scanner.store import policies
from web.auth import everywhere, permission, principal
from web.pages.base import NavigationItem, page
from web.resources import resources

bp = Blueprint("policies_page", __name__)
NAVIGATION = NavigationItem(50, "policies_page.index", "Policies", "read")

_TRIED = 100
START = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: production, description: what may reach production}
match:
  images: ["registry.example.com/shop/**"]
  environments: [production]
incomplete: deny
advisories: {max_age: 48h}
rules:
  - id: no-fixable-criticals
    vulnerability: {severity: [critical], fixable: true}
    grace: 72h
    action: deny
  - id: not-root
    check: root-user
    action: deny
"""


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
        found = policies.list_(session, principal().projects)
    return page("policies.html", found=found, fallback=default_policy(catalog.known()))


@bp.get("/policies/new")
@permission("policy")
def new() -> str:
    """Open the editor with a starting text."""
    return _editor(START, "0", "")


@bp.get("/policies/<name>")
@permission("read")
def one(name: str) -> str:
    """Show one version of a policy and its difference from another version."""
    with resources().database.read() as session:
        versions = policies.versions(session, name, principal().projects)
    shown = _chosen(versions, "version") or versions[0]
    former = _chosen(versions, "against") or next((v for v in versions if v.version < shown.version), None)
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
    _, problems = _parsed(_text())
    return page("policy_problems.html", problems=problems, checked=True)


@bp.post("/policies/dry-run")
@permission("read")
def dry_run() -> str:
    """Show which images and running workloads the text in the editor would newly deny or allow."""
    parsed, problems = _parsed(_text())
    if parsed is None:
        return page("policy_problems.html", problems=problems, checked=True)
    with resources().database.read() as session:
        tried = simulation.simulate(session, parsed, principal().projects, _TRIED)
        running = simulation.simulate_workloads(session, parsed, principal().projects, _TRIED)
    return page("policy_dry_run.html", tried=tried, running=running, name=parsed.name)


@bp.post("/policies")
@permission("policy")
def save() -> Response:
    """Save a new version. It takes effect at once.

    If it is refused, the editor shows the typed text again, with the reasons.
    """
    everywhere()
    text, version = _text(), request.form.get("version", "0")
    parsed, problems = _parsed(text)
    edited = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else -1
    name = request.form.get("name", "")
    if parsed is not None and name and parsed.name != name:
        problems = [Problem(0, 0, "metadata.name", f"policy {name!r} cannot be renamed: create a new one")]
    if parsed is None or problems:
        return make_response(_editor(text, version, name, problems), 422)
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


def _text() -> str:
    """The text with LF line ends. Browsers send CRLF, and the digest of a policy must not depend on the browser."""
    return request.form.get("text", "").replace("\r\n", "\n")


def _parsed(text: str) -> tuple[Policy | None, Sequence[Problem]]:
    try:
        with resources().database.read() as session:
            return use_cases.parse(session, text), ()
    except PolicyError as error:
        return None, error.problems
    except UsageError as error:
        return None, [Problem(0, 0, "", str(error))]


def _editor(
    text: str, version: str, name: str, problems: Sequence[Problem] = (), *, saved_meanwhile: bool = False
) -> str:
    return page(
        "policy_edit.html",
        text=text,
        edited=version,
        name=name,
        problems=problems,
        checked=False,
        saved_meanwhile=saved_meanwhile,
    )


def _chosen(versions: Sequence[policies.PolicyView], parameter: str) -> policies.PolicyView | None:
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
