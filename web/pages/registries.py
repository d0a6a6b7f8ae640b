"""Registries: what a server may pull from, and how their pushes reach it."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, request, url_for

from scanner.config import Secret
from scanner.errors import UsageError
from scanner.model.audit import Action
from scanner.model.reference import Reference
from scanner.store import audit, deliveries, registries, registry_checks
from web.auth import everywhere, permission, principal
from web.pages.base import NavigationItem, page
from web.services import services

bp = Blueprint("registries_page", __name__)
NAVIGATION = NavigationItem(70, "registries_page.index", "Registries", "manage")


@bp.get("/registries")
@permission("manage")
def index() -> str:
    """Configured registries and the last events that they sent."""
    with services().database.read() as session:
        found = [r for r in registries.list_(session) if principal().sees(r.project)]
        events = deliveries.list_(session, principal().projects, limit=20)
        postures = registry_checks.newest(session)
    return page("registries.html", found=found, postures=postures, events=events.items, created=None, error="")


@bp.post("/registries")
@permission("manage")
def add() -> Response:
    """Configure a registry."""
    everywhere()
    host = request.form.get("host", "").strip()
    if Reference.parse(f"{host}/x:y").host != host:
        raise UsageError(f"not a registry host: {host!r}", hint="write host[:port], without https://")
    password = request.form.get("password", "")
    with services().database.session() as session:
        view = registries.add(
            session, host, services().secret_key, insecure=request.form.get("insecure") == "1", ca_pem=request.form.get("ca_pem", "").strip(),
            username=request.form.get("username", "").strip(), password=Secret(password) if password else None,
        )  # fmt: skip
        audit.record(session, principal(), Action.REGISTRY_ADD, view.host, detail={"insecure": view.insecure})
    return redirect(url_for("registries_page.index"), 303)  # type: ignore[return-value]


@bp.post("/registries/<registry_id>/webhook")
@permission("manage")
def webhook(registry_id: str) -> str:
    """Make a webhook; its secret is shown on this page and nowhere again."""
    with services().database.session() as session:
        view = registries.get(session, registry_id, principal().projects)
        _, secret = deliveries.create_hook(
            session, f"pushes of {view.host}", "distribution", registry_id, services().secret_key
        )
        audit.record(session, principal(), Action.WEBHOOK_CREATE, view.host)
        found = [r for r in registries.list_(session) if principal().sees(r.project)]
        events = deliveries.list_(session, principal().projects, limit=20)
        postures = registry_checks.newest(session)
    base = services().settings.public_url or request.host_url
    created = {"host": view.host, "url": base.rstrip("/") + "/webhooks/distribution", "secret": secret.reveal()}
    return page("registries.html", found=found, postures=postures, events=events.items, created=created, error="")
