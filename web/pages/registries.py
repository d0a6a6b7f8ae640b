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
from scanner.model.cloud_registry import NAMES, STATIC
from scanner.services import registries as use_cases
from scanner.services import webhooks as webhook_use_cases
from scanner.store import deliveries, projects, reconciliation, registries, registry_checks
from web.auth import permission, principal
from web.pages import once
from web.pages.base import NavigationItem, page
from web.pages.forms import Refused, attempt, carry_out, showable
from web.resources import resources
from web.webhooks import formats

bp = Blueprint("registries_page", __name__)
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
    given = {**_given(), **_identity(STATIC)}

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
    except Refused as refused:
        kept = {**given, "host": request.form.get("host", ""), "project": request.form.get("project", "")}
        return make_response(_list(kept, refused.problems, refused.fields), 422)
    return redirect(url_for("registries_page.edit", registry_id=made.id), 303)  # type: ignore[return-value]


@bp.get("/registries/<registry_id>/edit")
@permission("manage")
def edit(registry_id: str) -> Response:
    """Show connection, credentials and webhooks of a registry. A new secret is shown once."""
    return once.drop(make_response(_editor(registry_id, created=once.carried())))


@bp.post("/registries/<registry_id>/edit")
@permission("manage")
def change(registry_id: str) -> Response:
    """Change the connection. The host cannot change: another host is another registry."""
    principal().require_every_project()
    given = _given()

    def work(session: Connection) -> object:
        return use_cases.change(session, principal(), resources().secret_key, registry_id, **given)

    return _done(registry_id, work, given)


@bp.post("/registries/<registry_id>/credentials")
@permission("manage")
def credentials(registry_id: str) -> Response:
    """Change the credentials. They are used from the next pull on.

    An empty password keeps the stored one, unless "anonymous" is chosen.
    """
    principal().require_every_project()
    typed, given = request.form.get("password", ""), _identity(None)
    removed = request.form.get("anonymous") == "1"

    def work(session: Connection) -> object:
        if removed:
            nothing: dict[str, Any] = {
                "credentials": STATIC,
                "username": "",
                "tenant": "",
                "token_service": "",
                "machine_role": False,
            }
            return use_cases.change(
                session, principal(), resources().secret_key, registry_id, **nothing, password=Secret("")
            )
        password = Secret(typed) if typed else None
        return use_cases.change(session, principal(), resources().secret_key, registry_id, **given, password=password)

    return _done(registry_id, work, {name: value for name, value in given.items() if value is not None})


@bp.post("/registries/<registry_id>/remove")
@permission("manage")
def remove(registry_id: str) -> Response:
    """Remove a registry and its credentials. Scan results are kept."""
    principal().require_every_project()
    try:
        with resources().database.session() as session:
            attempt(lambda: use_cases.remove(session, principal(), registry_id))
    except Refused as refused:
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
    return _done(registry_id, changes[action], {})


@bp.get("/registries/<registry_id>/webhooks/<uuid:webhook_id>/received")
@permission("manage")
def received(registry_id: str, webhook_id: UUID) -> str:
    """Show whether a webhook has delivered anything. The fragment refreshes until it has."""
    with resources().database.read() as session:
        hook = deliveries.get_hook(session, str(webhook_id), principal().projects)
    if hook.registry_id != registry_id:
        raise NotFoundError("this webhook does not exist")
    return page("webhook_received.html", hook=hook)


def _done(registry_id: str, work: Callable[[Connection], object], kept: dict[str, Any]) -> Response:
    """Run the change and show the registry. If it is refused, show the form as typed."""
    return carry_out(
        work,
        lambda refused: _editor(registry_id, kept, refused.problems, refused.fields),
        url_for("registries_page.edit", registry_id=registry_id),
    )


def _with_secret(
    registry_id: str, work: Callable[[], tuple[deliveries.HookView, Secret]], kept: dict[str, Any]
) -> Response:
    try:
        hook, secret = attempt(work)
    except Refused as refused:
        return make_response(_editor(registry_id, kept, refused.problems, refused.fields), 422)
    target: Any = redirect(url_for("registries_page.edit", registry_id=registry_id), 303)
    return once.carry(target, {"webhook": hook.id, "secret": secret.reveal()})


def _given() -> dict[str, Any]:
    """Return the fields that both forms share."""
    return {
        "aliases": request.form.get("aliases", "").split(),
        "insecure": request.form.get("insecure") == "1",
        "ca_pem": request.form.get("ca_pem", "").strip().replace("\r\n", "\n"),
        "write_receipts": request.form.get("write_receipts") == "1",
        "harbor": request.form.get("harbor", "off"),
    }


def _identity(kind: str | None) -> dict[str, Any]:
    """Return the fields of the credentials, without the password. ``kind``: where the form names none."""
    return {
        "credentials": request.form.get("credentials") or kind,
        "machine_role": request.form.get("machine_role") == "1",
        "username": request.form.get("username", "").strip(),
        "tenant": request.form.get("tenant", "").strip(),
        "token_service": request.form.get("token_service", "").strip(),
    }


def _list(kept: dict[str, Any] | None = None, problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    with resources().database.read() as session:
        found = use_cases.visible(session, principal())
        events = deliveries.list_(session, principal().projects, limit=20)
        postures = registry_checks.newest(session)
        hooks = deliveries.list_hooks(session, principal().projects)
        offered = projects.list_(session, principal().projects)
        lost = reconciliation.lost_by_webhook(session)
    return page(
        "registries.html",
        found=found,
        postures=postures,
        events=events.items,
        hooks=hooks,
        lost=lost,
        offered=offered,
        kinds=NAMES,
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
    values = {
        "aliases": view.aliases,
        "insecure": view.insecure,
        "ca_pem": view.ca_pem,
        "username": view.username,
        "credentials": view.credentials,
        "machine_role": view.machine_role,
        "tenant": view.tenant,
        "token_service": view.token_service,
        "write_receipts": view.write_receipts,
        "harbor": view.harbor,
        **showable(kept),
    }
    shown = _new_secret(hooks, base, created or {})
    return page(
        "registry_edit.html",
        registry=view,
        values=values,
        kinds=NAMES,
        hooks=hooks,
        formats=formats(),
        base=base,
        created=shown,
        problems=problems,
        wrong=wrong,
        may_edit=principal().projects is None,
    )


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
