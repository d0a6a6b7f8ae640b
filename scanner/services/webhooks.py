"""Webhooks that registries call: creating, rotating the secret with two valid at once, disabling, deleting.

A secret is returned once, by the function that makes it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.services import _fields as fields
from scanner.store import audit, deliveries, registries

NAME_LENGTH = 200
HEADER = r"^[A-Za-z][A-Za-z0-9-]{0,63}$"
Keep = Literal["new", "old"]


def create(
    session: Connection,
    actor: Actor,
    key: Secret,
    registry_id: str,
    format_: str,
    formats: Collection[str],
    *,
    name: str = "",
    header: str = "",
) -> tuple[deliveries.HookView, Secret]:
    """A new webhook and its secret. ``formats``: those that the web serves. ``header`` empty: ``Authorization``.

    Raises UsageError naming the field, NotFoundError for a registry that the actor does not see.
    """
    if format_ not in formats:
        hint = "one of " + ", ".join(formats)
        raise fields.invalid("format", f"there is no webhook format {format_[:64]!r}", hint)
    fields.text("name", name, NAME_LENGTH)
    if header:
        fields.matching("header", header, HEADER, 64, "write the name of an HTTP header, such as X-Registry-Token")
    registry = registries.get(session, registry_id, actor.projects)
    identifier, secret = deliveries.create_hook(
        session, name or f"pushes of {registry.host}", format_, registry.id, key, header=header or "Authorization"
    )
    hook = deliveries.get_hook(session, identifier, actor.projects)
    detail = {"registry": registry.host, "format": format_}
    audit.record(session, actor, Action.WEBHOOK_CREATE, hook.id, detail=detail)
    return hook, secret


def rotate(session: Connection, actor: Actor, key: Secret, webhook_id: str) -> tuple[deliveries.HookView, Secret]:
    """A second secret, so that no push is lost while the registry is moved to it. Both are valid until `finish`.

    Raises NotFoundError, ConflictError(reason="rotating") while two are valid already.
    """
    hook = deliveries.get_hook(session, webhook_id, actor.projects)
    secret = deliveries.add_secret(session, hook.id, key)
    audit.record(session, actor, Action.WEBHOOK_ROTATE, hook.id, detail=_detail(hook))
    return deliveries.get_hook(session, hook.id, actor.projects), secret


def finish(session: Connection, actor: Actor, key: Secret, webhook_id: str, keep: Keep = "new") -> deliveries.HookView:
    """End a rotation: only one secret is valid from now on. ``keep`` "old" takes the rotation back.

    Raises NotFoundError, ConflictError(reason="not_rotating").
    """
    hook = deliveries.get_hook(session, webhook_id, actor.projects)
    deliveries.drop_secret(session, hook.id, key, keep_new=keep == "new")
    audit.record(session, actor, Action.WEBHOOK_RETIRE, hook.id, detail={**_detail(hook), "kept": keep})
    return deliveries.get_hook(session, hook.id, actor.projects)


def set_disabled(session: Connection, actor: Actor, webhook_id: str, disabled: bool) -> deliveries.HookView:
    """Refuse deliveries with its secrets, or take them again. What it delivered stays. Raises NotFoundError."""
    hook = deliveries.get_hook(session, webhook_id, actor.projects)
    deliveries.disable_hook(session, hook.id, disabled)
    action = Action.WEBHOOK_DISABLE if disabled else Action.WEBHOOK_ENABLE
    audit.record(session, actor, action, hook.id, detail={**_detail(hook), "before": hook.disabled, "after": disabled})
    return deliveries.get_hook(session, hook.id, actor.projects)


def remove(session: Connection, actor: Actor, webhook_id: str) -> None:
    """Delete a webhook with the record of its deliveries. The scans that they led to stay. Raises NotFoundError."""
    hook = deliveries.get_hook(session, webhook_id, actor.projects)
    forgotten = deliveries.remove_hook(session, hook.id)
    audit.record(session, actor, Action.WEBHOOK_REMOVE, hook.id, detail={**_detail(hook), "deliveries": forgotten})


def _detail(hook: deliveries.HookView) -> dict[str, object]:
    return {"name": hook.name, "registry": hook.host, "format": hook.format}
