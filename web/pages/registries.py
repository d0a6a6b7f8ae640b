"""Registries: hosts that images are pulled from, their credentials, and webhooks for pushes.

Each form answers with a redirect, so a reload does not repeat the action. A refused form is shown again as typed, with
the wrong fields marked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, make_response, redirect, request, url_for
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import NotFoundError
from scanner.model.cloud_registry import HOSTS, is_host
from scanner.model.cloud_registry import NAMES as KINDS
from scanner.model.registry import IDENTITY, NAMES, RegistryChanges, RegistryFields, anonymous, changes, values
from scanner.services import registries as use_cases
from scanner.services import webhooks as webhook_use_cases
from scanner.store import deliveries, projects, reconciliation, registries, registry_checks
from web.auth import permission, principal
from web.pages import once
from web.pages.base import NavigationItem, page
from web.pages.forms import RefusedForm, attempt, carry_out, plain_lines, showable
from web.resources import resources
from web.webhooks import formats

bp = Blueprint("registries_page", __name__)
_SENDERS = {"docker.io": "dockerhub", "quay.io": "quay", "ghcr.io": "ghcr", "registry.gitlab.com": "gitlab"}
_CONNECTION = frozenset(NAMES) - IDENTITY
NAVIGATION = NavigationItem(70, "registries_page.index", "Registries", "manage")


@bp.get("/registries")
@permission("manage")
def index() -> str:
    """List registries and their latest events."""
    return _list()


@bp.post("/registries")
@permission("manage")
def add() -> Response:
    """Add a registry."""
    principal().require_every_project()
    given = _given_changes(NAMES)

    def create() -> registries.RegistryView:
        password = request.form.get("password", "")
        with resources().database.session() as session:
            return use_cases.add(
                session,
                principal(),
                resources().secret_key,
                request.form.get("host", "").strip(),
                **given,
                password=Secret(password) if password else None,
                project=request.form.get("project", projects.DEFAULT),
            )

    try:
        made = attempt(create)
    except RefusedForm as refused:
        # Without the password: a page never shows one again, not even to the person who typed it.
        kept = {**given, "host": request.form.get("host", ""), "project": request.form.get("project", "")}
        return make_response(_list(kept, refused.problems, refused.fields), 422)
    return redirect(url_for("registries_page.edit", registry_id=made.id), 303)  # type: ignore[return-value]


@bp.get("/registries/<registry_id>/edit")
@permission("manage")
def edit(registry_id: str) -> Response:
    """Show connection, credentials and webhooks of a registry. A new secret is shown once."""
    return once.drop(make_response(_editor(registry_id, created=once.carried_values())))


@bp.post("/registries/<registry_id>/edit")
@permission("manage")
def change(registry_id: str) -> Response:
    """Change the connection. The host cannot change: another host is another registry."""
    principal().require_every_project()
    given = _given_changes(_CONNECTION)

    def work(session: Connection) -> object:
        return use_cases.change(session, principal(), resources().secret_key, registry_id, **given)

    return _run_and_show(registry_id, work, {**given}, saved="connection")


@bp.post("/registries/<registry_id>/credentials")
@permission("manage")
def credentials(registry_id: str) -> Response:
    """Change the credentials. They are used from the next pull on.

    An empty password keeps the stored one, unless "anonymous" is chosen.
    """
    principal().require_every_project()
    typed, given = request.form.get("password", ""), _given_changes(IDENTITY)
    removed = request.form.get("anonymous") == "1"

    def work(session: Connection) -> object:
        if removed:
            given.update(anonymous())
        password = Secret("") if removed else Secret(typed) if typed else None
        return use_cases.change(session, principal(), resources().secret_key, registry_id, **given, password=password)

    return _run_and_show(registry_id, work, {**given}, saved="credentials")


@bp.post("/registries/<registry_id>/remove")
@permission("manage")
def remove(registry_id: str) -> Response:
    """Remove a registry and its credentials. Scan results are kept."""
    principal().require_every_project()
    try:
        with resources().database.session() as session:
            attempt(lambda: use_cases.remove(session, principal(), registry_id))
    except RefusedForm as refused:
        return make_response(_editor(registry_id, problems=refused.problems), 422)
    return redirect(url_for("registries_page.index"), 303)  # type: ignore[return-value]


@bp.post("/registries/<registry_id>/webhook")
@permission("manage")
def webhook(registry_id: str) -> Response:
    """Create a webhook. Only the next page shows its secret, once."""
    given = {name: request.form.get(name, "").strip() for name in ("name", "header", "sender")}
    format_ = request.form.get("format", "distribution")

    def create() -> tuple[deliveries.HookView, Secret]:
        with resources().database.session() as session:
            return webhook_use_cases.create(
                session, principal(), resources().secret_key, registry_id, format_, formats(), **given
            )

    return _with_secret(registry_id, create, {**given, "format": format_})


@bp.post("/registries/<registry_id>/webhooks/<uuid:webhook_id>/<action>")
@permission("manage")
def change_webhook(registry_id: str, webhook_id: UUID, action: str) -> Response:
    """Rotate a webhook's secret, end the rotation, disable, enable or delete it."""
    who, key, hook = principal(), resources().secret_key, str(webhook_id)
    with resources().database.read() as session:
        # The address names both. A mismatch is a forged or an old link, and changing another registry's webhook would
        # surprise.
        if deliveries.get_hook(session, hook, who.projects).registry_id != registry_id:
            raise NotFoundError("this webhook does not exist")
    if action == "rotate":

        def rotate() -> tuple[deliveries.HookView, Secret]:
            with resources().database.session() as session:
                return webhook_use_cases.rotate(session, who, key, hook)

        return _with_secret(registry_id, rotate, {})
    changes: dict[str, Callable[[Connection], object]] = {
        "finish": lambda session: webhook_use_cases.finish(session, who, key, hook, "new"),
        "take-back": lambda session: webhook_use_cases.finish(session, who, key, hook, "old"),
        "disable": lambda session: webhook_use_cases.set_disabled(session, who, hook, True),
        "enable": lambda session: webhook_use_cases.set_disabled(session, who, hook, False),
        "remove": lambda session: webhook_use_cases.remove(session, who, hook),
    }
    if action not in changes:
        raise NotFoundError("unknown webhook action")
    return _run_and_show(registry_id, changes[action], {})


@bp.get("/registries/<registry_id>/webhooks/<uuid:webhook_id>/received")
@permission("manage")
def received(registry_id: str, webhook_id: UUID) -> str:
    """Show whether a webhook has delivered anything. The fragment refreshes until it has."""
    with resources().database.read() as session:
        hook = deliveries.get_hook(session, str(webhook_id), principal().projects)
    if hook.registry_id != registry_id:
        raise NotFoundError("this webhook does not exist")
    return page("webhook_received.html", hook=hook)


def _run_and_show(
    registry_id: str, work: Callable[[Connection], object], kept: dict[str, Any], *, saved: str | None = None
) -> Response:
    """Run the change and show the registry, which says what was ``saved``. If it is refused, show the form as typed."""
    return carry_out(
        work,
        lambda refused: _editor(registry_id, kept, refused.problems, refused.fields),
        url_for("registries_page.edit", registry_id=registry_id, saved=saved),
    )


def _with_secret(
    registry_id: str, work: Callable[[], tuple[deliveries.HookView, Secret]], kept: dict[str, Any]
) -> Response:
    try:
        hook, secret = attempt(work)
    except RefusedForm as refused:
        return make_response(_editor(registry_id, kept, refused.problems, refused.fields), 422)
    target: Any = redirect(url_for("registries_page.edit", registry_id=registry_id), 303)
    return once.carry(target, {"webhook": hook.id, "secret": secret.reveal()})


def _given_changes(names: Collection[str]) -> RegistryChanges:
    """Return those of these fields that the form has. A box that is not ticked is not sent."""
    found: dict[str, Any] = {}
    for name, default in values(RegistryFields()).items():
        text = request.form.get(name)
        if name not in names or (text is None and not isinstance(default, bool)):
            continue
        if isinstance(default, bool):
            found[name] = text == "1"
        else:
            found[name] = (text or "").split() if isinstance(default, tuple) else plain_lines(text or "")
    return changes(found)


def _list(kept: dict[str, Any] | None = None, problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    with resources().database.read() as session:
        found = use_cases.visible(session, principal())
        events = deliveries.list_deliveries(session, principal().projects, limit=20)
        postures = registry_checks.newest(session)
        hooks = deliveries.list_hooks(session, principal().projects)
        offered = projects.list_projects(session, principal().projects)
        lost = reconciliation.lost_by_webhook(session)
    return page(
        "registries.html",
        found=found,
        postures=postures,
        events=events.items,
        hooks=hooks,
        lost=lost,
        offered=offered,
        kinds=KINDS,
        kept=showable(kept),
        problems=problems,
        wrong=wrong,
    )


def _editor(
    registry_id: str,
    kept: dict[str, Any] | None = None,
    problems: Sequence[str] = (),
    wrong: Collection[str] = (),
    created: dict[str, str] | None = None,
) -> str:
    with resources().database.read() as session:
        view = registries.get(session, registry_id, principal().projects)
        hooks = [h for h in deliveries.list_hooks(session, principal().projects) if h.registry_id == registry_id]
    base = (resources().settings.public_url or request.host_url).rstrip("/")
    shown_values = {**values(view), **showable(kept)}
    shown = _new_secret(hooks, base, created or {})
    return page(
        "registry_edit.html",
        registry=view,
        values=shown_values,
        kinds=KINDS,
        hooks=hooks,
        formats=formats(),
        likely_format=_likely_format(view),
        base=base,
        created=shown,
        problems=problems,
        wrong=wrong,
        may_edit=principal().projects is None,
    )


def _likely_format(view: registries.RegistryView) -> str:
    """Return the webhook format that a registry of this host most likely sends."""
    found = _SENDERS.get(view.host) or next((kind for kind in HOSTS if is_host(kind, view.host)), "")
    chosen = "harbor" if view.harbor != "off" else found
    return chosen if chosen in formats() else "distribution"


def _new_secret(hooks: Sequence[deliveries.HookView], base: str, created: dict[str, str]) -> dict[str, str] | None:
    """Return the new secret and the configuration snippet for the registry."""
    hook = next((hook for hook in hooks if hook.id == created.get("webhook")), None)
    if hook is None:
        return None
    url, secret = f"{base}/webhooks/{hook.format}", created["secret"]
    form = formats()[hook.format]  # it exists: the hook was created a moment ago
    header = hook.header or form.header
    return {
        "id": hook.id,
        "name": hook.name,
        "url": form.address(url, secret),
        "header": header if form.authenticity == "header" else "",
        "secret": secret,
        "setup": form.setup,
        "snippet": form.configured(url, header, secret, hook.sender),
        "rotating": "1" if hook.rotating_since else "",
    }
