"""Webhooks that registries call. The secret of one is in the answer that creates it, and nowhere else ever."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Response, request
from pydantic import Field

from scanner.errors import UsageError
from scanner.model.audit import Action
from scanner.store import audit, deliveries, registries
from web.api.base import PREFIX, Body, Model, Name, Text, answer, blueprint, problems
from web.auth import permission, principal
from web.services import services
from web.webhooks import formats

api = blueprint("hooks", "Webhooks", "What registries call when something is pushed.")


class HookIn(Body):
    registry: UUID = Field(strict=False)
    format: Name = Field("distribution", description="What it sends.")
    name: Annotated[Text, Field(max_length=200)] = ""


class HookOut(Model):
    id: UUID
    name: str
    format: str
    registry: UUID
    host: str
    project: str
    created_at: datetime
    disabled: bool
    url: str = Field(description="What the registry is to POST to.")


class NewHookOut(HookOut):
    secret: str = Field(description="Shown once. `Authorization: Bearer …` for the format `distribution`.")


class HookList(Model):
    items: list[HookOut]


class HookPath(Model):
    webhook_id: UUID


def show(hook: deliveries.HookView) -> HookOut:
    return HookOut(**_members(hook))


def _members(hook: deliveries.HookView) -> dict[str, object]:
    base = services().settings.public_url or request.host_url
    return {
        "id": hook.id, "name": hook.name, "format": hook.format, "registry": hook.registry_id, "host": hook.host, "project": hook.project,
        "created_at": hook.created_at, "disabled": hook.disabled, "url": f"{base.rstrip('/')}/webhooks/{hook.format}",
    }  # fmt: skip


@api.get("/webhooks", responses={"200": HookList})
@permission("manage")
def index() -> Response:
    """List webhooks"""
    with services().database.read() as session:
        found = deliveries.list_hooks(session, principal().projects)
    return answer(HookList(items=[show(hook) for hook in found]))


@api.post("/webhooks", responses={"201": NewHookOut, **problems(404)})
@permission("manage")
def create(body: HookIn) -> Response:
    """Create a webhook

    Its secret is in this answer and nowhere else.
    """
    if body.format not in formats():
        raise UsageError(
            f"there is no webhook format {body.format!r}", reason="invalid", hint="one of " + ", ".join(formats())
        )
    with services().database.session() as session:
        registry = registries.get(session, str(body.registry), principal().projects)
        name = body.name or f"pushes of {registry.host}"
        identifier, secret = deliveries.create_hook(session, name, body.format, registry.id, services().secret_key)
        hook = deliveries.get_hook(session, identifier, principal().projects)
        detail = {"registry": registry.host, "format": body.format}
        audit.record(session, principal(), Action.WEBHOOK_CREATE, identifier, detail=detail)
    created = NewHookOut(secret=secret.reveal(), **_members(hook))
    return answer(created, 201, {"Location": f"{PREFIX}/webhooks/{identifier}"})


@api.get("/webhooks/<uuid:webhook_id>", responses={"200": HookOut, **problems(404)})
@permission("manage")
def get(path: HookPath) -> Response:
    """Read a webhook, without its secret"""
    with services().database.read() as session:
        return answer(show(deliveries.get_hook(session, str(path.webhook_id), principal().projects)))


@api.delete("/webhooks/<uuid:webhook_id>", responses={"200": HookOut, **problems(404)})
@permission("manage")
def disable(path: HookPath) -> Response:
    """Disable a webhook

    Deliveries with its secret are refused from then on. What it delivered stays.
    """
    with services().database.session() as session:
        before = deliveries.get_hook(session, str(path.webhook_id), principal().projects)
        deliveries.disable_hook(session, before.id, True)
        hook = deliveries.get_hook(session, before.id, principal().projects)
        detail = {"before": before.disabled, "after": True}
        audit.record(session, principal(), Action.WEBHOOK_DISABLE, hook.id, detail=detail)
    return answer(show(hook))
