"""Webhooks of registries. The secret is only in the answer that creates it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response, request
from pydantic import Field, StringConstraints

from scanner.config import Secret
from scanner.services import webhooks as use_cases
from scanner.store import deliveries
from web.api.base import PREFIX, Body, Model, Name, Text, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources
from web.webhooks import formats

api = blueprint("hooks", "Webhooks", "Webhooks that registries call after a push.")


class HookIn(Body):
    registry: UUID = Field(strict=False)
    format: Name = Field("distribution", description="Format of the registry's notifications.")
    name: Annotated[Text, Field(max_length=use_cases.NAME_LENGTH)] = ""
    header: Annotated[str, StringConstraints(pattern=f"^$|{use_cases.HEADER}")] = Field(
        "", description="The HTTP header that carries the secret. Empty: the format's own."
    )
    sender: Annotated[Text, Field(max_length=use_cases.SENDER_LENGTH)] = Field(
        "", description="Required signer: the service account's e-mail address (`gar`), the SNS topic's ARN (`ecr`)."
    )


class FinishIn(Body):
    keep: Literal["new", "old"] = Field(
        "new", description="`new` when the registry sends the new secret; `old` cancels the rotation."
    )


class HookOut(Model):
    id: UUID
    name: str
    format: str
    registry: UUID
    host: str
    project: str
    created_at: datetime
    disabled: bool
    header: str = Field(description="Header with the secret or signature. Empty: the URL contains it.")
    sender: str
    rotating_since: datetime | None = Field(description="Since when two secrets are valid; null: only one is.")
    last_delivery: datetime | None
    url: str = Field(description="URL to which the registry must POST.")


class NewHookOut(HookOut):
    secret: str = Field(description="Shown only once. `Authorization: Bearer …` for the format `distribution`.")
    setup: str = Field(description="Where to configure it.")
    snippet: str = Field(description="What to put there, with the address and the secret.")


class HookList(Model):
    items: list[HookOut]


class HookPath(Model):
    webhook_id: UUID


def show(hook: deliveries.HookView) -> HookOut:
    return HookOut(**_members(hook))


def _with_secret(hook: deliveries.HookView, secret: Secret) -> NewHookOut:
    form, members = formats()[hook.format], _members(hook)
    snippet = form.configured(str(members["url"]), str(members["header"]), secret.reveal(), hook.sender)
    return NewHookOut(secret=secret.reveal(), setup=form.setup, snippet=snippet, **members)


def _members(hook: deliveries.HookView) -> dict[str, object]:
    # Behind a proxy the request's host is not what a registry can reach.
    base = resources().settings.public_url or request.host_url
    # None: the format's plug-in was removed; its webhooks can still be listed and deleted.
    form = formats().get(hook.format)
    return {
        "id": hook.id,
        "name": hook.name,
        "format": hook.format,
        "registry": hook.registry_id,
        "host": hook.host,
        "project": hook.project,
        "created_at": hook.created_at,
        "disabled": hook.disabled,
        "header": hook.header or (form.header if form else ""),
        "sender": hook.sender,
        "rotating_since": hook.rotating_since,
        "last_delivery": hook.last_delivery,
        "url": f"{base.rstrip('/')}/webhooks/{hook.format}",
    }


@api.get("/webhooks", responses={"200": HookList})
@permission("manage")
def index() -> Response:
    """List webhooks"""
    with resources().database.read() as session:
        found = deliveries.list_hooks(session, principal().projects)
    return answer(HookList(items=[show(hook) for hook in found]))


@api.post("/webhooks", responses={"201": NewHookOut, **problems(404)})
@permission("manage")
def create(body: HookIn) -> Response:
    """Create a webhook

    Its secret is only in this answer.
    """
    with resources().database.session() as session:
        hook, secret = use_cases.create(
            session,
            principal(),
            resources().secret_key,
            str(body.registry),
            body.format,
            formats(),
            name=body.name,
            header=body.header,
            sender=body.sender,
        )
    return answer(_with_secret(hook, secret), 201, {"Location": f"{PREFIX}/webhooks/{hook.id}"})


@api.get("/webhooks/<uuid:webhook_id>", responses={"200": HookOut, **problems(404)})
@permission("manage")
def get(path: HookPath) -> Response:
    """Read a webhook, without its secret"""
    with resources().database.read() as session:
        return answer(show(deliveries.get_hook(session, str(path.webhook_id), principal().projects)))


@api.delete("/webhooks/<uuid:webhook_id>", responses={"200": HookOut, **problems(404)})
@permission("manage")
def disable(path: HookPath) -> Response:
    """Disable a webhook

    Deliveries with its secret are refused. Earlier deliveries are kept.
    """
    with resources().database.session() as session:
        return answer(show(use_cases.set_disabled(session, principal(), str(path.webhook_id), True)))


@api.post("/webhooks/<uuid:webhook_id>/enable", responses={"200": HookOut, **problems(404)})
@permission("manage")
def enable(path: HookPath) -> Response:
    """Enable a webhook

    Deliveries with its secret are accepted again.
    """
    with resources().database.session() as session:
        return answer(show(use_cases.set_disabled(session, principal(), str(path.webhook_id), False)))


@api.post("/webhooks/<uuid:webhook_id>/rotate", responses={"200": NewHookOut, **problems(404, 409)})
@permission("manage")
def rotate(path: HookPath) -> Response:
    """Rotate a webhook's secret

    Creates a second secret, which is only in this answer. Both are valid until `finish-rotation`, so no push is lost.
    """
    with resources().database.session() as session:
        hook, secret = use_cases.rotate(session, principal(), resources().secret_key, str(path.webhook_id))
    return answer(_with_secret(hook, secret))


@api.post("/webhooks/<uuid:webhook_id>/finish-rotation", responses={"200": HookOut, **problems(404, 409)})
@permission("manage")
def finish_rotation(path: HookPath, body: FinishIn) -> Response:
    """Finish the rotation of a webhook's secret

    Only the chosen secret remains valid.
    """
    with resources().database.session() as session:
        return answer(
            show(use_cases.finish(session, principal(), resources().secret_key, str(path.webhook_id), body.keep))
        )


@api.post("/webhooks/<uuid:webhook_id>/remove", responses={"204": None, **problems(404)})
@permission("manage")
def remove(path: HookPath) -> Response:
    """Delete a webhook

    Its deliveries are deleted as well. The scans that they started are kept.
    """
    with resources().database.session() as session:
        use_cases.remove(session, principal(), str(path.webhook_id))
    return Response(status=204)
