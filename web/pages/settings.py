"""Settings pages: server, people, projects, tokens. Every form calls the same use case as the API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, current_app, make_response, redirect, request, url_for
from sqlalchemy.engine import Connection

from scanner import __version__, catalog
from scanner.errors import NotFoundError, ScannerError
from scanner.model.access import CONFINED, PURPOSES, ROLES
from scanner.services import accounts as account_use_cases
from scanner.services import projects as project_use_cases
from scanner.services import retention
from scanner.services import tokens as token_use_cases
from scanner.store import accounts, projects, scans
from web.auth import everywhere, permission, principal
from web.pages import once
from web.pages.base import NavigationItem, page
from web.pages.forms import RefusedForm, attempt, whole_number
from web.resources import resources

bp = Blueprint("settings_page", __name__)
NAVIGATION = NavigationItem(100, "settings_page.index", "Settings", "manage")

_LIFETIMES = (7, 30, 90, 365)


@bp.get("/settings")
@permission("manage")
def index() -> str:
    """Server facts, health checks and queue figures."""
    everywhere()
    settings = resources().settings
    with resources().database.read() as session:
        figures = scans.figures(session)
    engine = catalog.engines().get(settings.engine)
    try:
        version = engine.version(settings) if engine else ""
    except ScannerError:
        version = ""  # the page is needed most when an engine is broken; the check of readiness says why
    facts = {
        "Version": __version__,
        "Database": "SQLite" if resources().database.is_sqlite else "PostgreSQL",
        "Queue": "embedded" if not settings.broker_url else "broker",
        "Engine": f"{settings.engine} {version}".strip(),
        "Public address": settings.public_url or "not set (the request address is used)",
        "Private addresses": "allowed" if settings.allow_private_addresses else "refused",
        "Maximum advisory age": f"{settings.advisories_max_age_hours:g} hours",
        "Log": ("JSON lines" if settings.log_json else "text") + f", log level {settings.log_level}",
    }
    readiness = current_app.extensions["readiness"].checks(resources())
    return page("settings.html", section="server", facts=facts, readiness=readiness, figures=figures)


@bp.get("/settings/storage")
@permission("manage")
def storage() -> str:
    """Show retention periods, what uses how much space, and what the last pruning removed."""
    everywhere()
    settings = resources().settings
    with resources().database.read() as session:
        found = retention.storage(session, settings)
    return page(
        "settings_storage.html",
        section="storage",
        found=found,
        kept=retention.retention_settings(settings),
        label_of=retention.label_of,
    )


@bp.post("/settings/storage/prune")
@permission("manage")
def prune() -> Response:
    """Request a pruning. A worker does it."""
    with resources().database.session() as session:
        retention.request(session, principal())
    return redirect(url_for("settings_page.storage"), 303)  # type: ignore[return-value]


@bp.get("/settings/people")
@permission("manage")
def people() -> str:
    """List all user accounts."""
    return _people()


@bp.post("/settings/people")
@permission("manage")
def add_person() -> Response:
    """Create a user who signs in with a password."""
    given = {name: request.form.get(name, "") for name in ("name", "password", "role")}

    def add() -> None:
        with resources().database.session() as session:
            account_use_cases.create_user(session, principal(), given["name"], given["password"], given["role"])

    kept = {"name": given["name"], "role": given["role"]}
    return _run_and_show(add, "people", lambda refused: _people(refused.problems, kept, refused.fields))


@bp.post("/settings/people/<uuid:user_id>/<action>")
@permission("manage")
def change_person(user_id: UUID, action: str) -> Response:
    """Change a user: role, enabled or disabled, sign out everywhere."""
    role, who, user = request.form.get("role", ""), principal(), str(user_id)
    changes: dict[str, Callable[[Connection], object]] = {
        "role": lambda session: account_use_cases.set_role(session, who, user, role),
        "disable": lambda session: account_use_cases.set_disabled(session, who, user, True),
        "enable": lambda session: account_use_cases.set_disabled(session, who, user, False),
        "sign-out": lambda session: account_use_cases.sign_out(session, who, user),
    }
    if action not in changes:
        raise NotFoundError("unknown action on a user account")

    def change() -> None:
        with resources().database.session() as session:
            changes[action](session)

    return _run_and_show(change, "people", lambda refused: _people(refused.problems))


@bp.get("/settings/projects")
@permission("manage")
def all_projects() -> str:
    """List projects with their patterns and members."""
    return _projects()


@bp.post("/settings/projects")
@permission("manage")
def add_project() -> Response:
    """Add a project."""
    given = _project_given()

    def add() -> None:
        with resources().database.session() as session:
            project_use_cases.create(session, principal(), **given)

    return _run_and_show(add, "all_projects", lambda refused: _projects(refused.problems, given, refused.fields))


@bp.post("/settings/projects/<name>")
@permission("manage")
def change_project(name: str) -> Response:
    """Change the description, patterns and groups of a project."""
    given = _project_given()
    del given["name"]

    def change() -> None:
        with resources().database.session() as session:
            project_use_cases.change(session, principal(), name, **given)

    return _run_and_show(change, "all_projects", lambda refused: _projects(refused.problems))


@bp.post("/settings/projects/<name>/members")
@permission("manage")
def change_members(name: str) -> Response:
    """Add or remove a member."""

    def change() -> None:
        user = request.form.get("user", "")
        with resources().database.session() as session:
            if request.form.get("remove") == "1":
                project_use_cases.remove_member(session, principal(), name, user)
            else:
                project_use_cases.add_member(session, principal(), name, user)

    return _run_and_show(change, "all_projects", lambda refused: _projects(refused.problems))


@bp.get("/settings/tokens")
@permission("manage")
def tokens() -> Response:
    """List API tokens. The text of a token that was just created is shown once."""
    created = once.carried_values()
    return once.drop(make_response(_tokens(created=created if "token" in created else None)))


@bp.post("/settings/tokens")
@permission("manage")
def add_token() -> Response:
    """Create a token. Only the next page shows its text, once."""
    given: dict[str, Any] = {
        "name": request.form.get("name", "").strip(),
        "scopes": request.form.getlist("scope"),
        "projects": request.form.getlist("project"),
        "days": whole_number(request.form.get("days", "")),
    }

    def make() -> dict[str, str]:
        with resources().database.session() as session:
            token, text = token_use_cases.create(
                session,
                principal(),
                resources().secret_key,
                given["name"],
                given["scopes"],
                project_names=given["projects"],
                days=given["days"],
            )
        return {"name": token.name, "token": text.reveal()}

    try:
        created = attempt(make)
    except RefusedForm as refused:
        return make_response(_tokens(refused.problems, given, refused.fields), 422)
    target: Any = redirect(url_for("settings_page.tokens"), 303)
    return once.carry(target, created)


@bp.post("/settings/tokens/<uuid:token_id>/revoke")
@permission("manage")
def revoke_token(token_id: UUID) -> Response:
    """Revoke a token and end the web sessions that it opened."""

    def revoke() -> None:
        with resources().database.session() as session:
            token_use_cases.revoke(session, principal(), str(token_id))

    return _run_and_show(revoke, "tokens", lambda refused: _tokens(refused.problems))


def _run_and_show(work: Callable[[], object], section: str, again: Callable[[RefusedForm], str]) -> Response:
    """Run the change and show the section. If the change is refused, show the form with the reasons."""
    try:
        attempt(work)
    except RefusedForm as refused:
        return make_response(again(refused), 422)
    return redirect(url_for(f"settings_page.{section}"), 303)  # type: ignore[return-value]


def _people(problems: Sequence[str] = (), kept: dict[str, str] | None = None, wrong: Collection[str] = ()) -> str:
    everywhere()
    with resources().database.read() as session:
        found = accounts.list_users(session)
    # Roles that may do more than the caller are refused by the use case, so they are not offered.
    may = [role for role, scopes in ROLES.items() if scopes <= principal().permissions]
    return page(
        "settings_people.html",
        section="people",
        found=found,
        roles=may,
        problems=problems,
        kept=kept or {},
        wrong=wrong,
    )


def _projects(problems: Sequence[str] = (), kept: dict[str, Any] | None = None, wrong: Collection[str] = ()) -> str:
    everywhere()
    with resources().database.read() as session:
        found = projects.list_projects(session, None)
        members = {project.name: projects.members(session, project.name) for project in found}
        users = [user for user in accounts.list_users(session) if user.role in CONFINED]
    return page(
        "settings_projects.html",
        section="projects",
        found=found,
        members=members,
        users=users,
        problems=problems,
        kept=kept or {},
        wrong=wrong,
    )


def _tokens(
    problems: Sequence[str] = (),
    kept: dict[str, Any] | None = None,
    wrong: Collection[str] = (),
    created: dict[str, str] | None = None,
) -> str:
    who = principal()
    with resources().database.read() as session:
        found = token_use_cases.visible(session, who)
        offered = projects.list_projects(session, who.projects)
    scopes = {scope: purpose for scope, purpose in PURPOSES.items() if who.may(scope)}
    return page(
        "settings_tokens.html",
        section="tokens",
        found=found,
        offered=offered,
        scopes=scopes,
        lifetimes=_LIFETIMES,
        problems=problems,
        kept=kept or {},
        wrong=wrong,
        created=created,
    )


def _project_given() -> dict[str, Any]:
    return {
        "name": request.form.get("name", "").strip(),
        "description": request.form.get("description", "").strip(),
        "patterns": request.form.get("patterns", "").split(),
        "groups": [line.strip() for line in request.form.get("groups", "").splitlines() if line.strip()],
    }
