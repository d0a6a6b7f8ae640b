"""Webhooks that registries call: create, rotate the secret, disable, delete.

A secret is returned once, by the function that creates it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, Protocol

from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.plurals import number_of
from scanner.model.scan import Lane, ScanRequest
from scanner.services import _fields as fields
from scanner.services import registries as registry_cases
from scanner.store import audit, deliveries, projects, registries, scans

NAME_LENGTH = 200
HEADER = r"^[A-Za-z][A-Za-z0-9-]{0,63}$"
SENDER_LENGTH = 400  # characters: an e-mail address, or the ARN of a topic
TEST = "test delivery"  # the outcome of a delivery
Keep = Literal["new", "old"]


class Form(Protocol):
    """The requirements of a webhook format for a new webhook. See `web.webhooks.base.WebhookFormat`."""

    @property
    def authenticity(self) -> str: ...
    @property
    def sender_label(self) -> str: ...
    @property
    def sender_pattern(self) -> str: ...
    @property
    def sender_example(self) -> str: ...
    @property
    def sender_required(self) -> bool: ...


def create(
    session: Connection,
    actor: Actor,
    key: Secret,
    registry_id: str,
    format_: str,
    formats: Collection[str] | Mapping[str, Form],
    *,
    name: str = "",
    header: str = "",
    sender: str = "",
) -> tuple[deliveries.HookView, Secret]:
    """Create a webhook and return it with its secret.

    ``formats``: the web's formats; if they are ids only, their requirements are not checked. ``header`` empty: the
    format's default. ``sender``: the required signer of deliveries, for formats that are signed.

    Raises UsageError naming the field, NotFoundError for a registry that the actor does not see.
    """
    if format_ not in formats:
        hint = "one of " + ", ".join(formats)
        raise fields.invalid("format", f"there is no webhook format {format_[:64]!r}", hint)
    fields.text("name", name, NAME_LENGTH)
    if header:
        fields.check_pattern("header", header, HEADER, 64, "write the name of an HTTP header, such as X-Registry-Token")
    fields.text("sender", sender, SENDER_LENGTH)
    if isinstance(formats, Mapping):
        _check(formats[format_], header, sender)
    registry = registries.get(session, registry_id, actor.projects)
    identifier, secret = deliveries.create_hook(
        session, name or f"pushes of {registry.host}", format_, registry.id, key, header=header, sender=sender
    )
    hook = deliveries.get_hook(session, identifier, actor.projects)
    detail = {"registry": registry.host, "format": format_}
    audit.record(session, actor, Action.WEBHOOK_CREATE, hook.id, detail=detail)
    return hook, secret


def _check(form: Form, header: str, sender: str) -> None:
    """Raise UsageError naming the field unless header and sender fit the format."""
    if header and form.authenticity != "header":
        hint = "leave it empty: the registry chooses the header"
        raise fields.invalid("header", "the header of this format cannot be chosen", hint)
    example = f"such as {form.sender_example}"
    if sender and not form.sender_label:
        raise fields.invalid("sender", "deliveries of this format are not signed", "leave it empty")
    if sender:
        fields.check_pattern("sender", sender, rf"(?:{form.sender_pattern})", SENDER_LENGTH, f"write it {example}")
    elif form.sender_required:
        raise fields.invalid("sender", f"{form.sender_label} is required", example)


def rotate(session: Connection, actor: Actor, key: Secret, webhook_id: str) -> tuple[deliveries.HookView, Secret]:
    """Add a second secret. Both are valid until `finish`, so that no delivery is lost while the registry is changed.

    Raises NotFoundError, ConflictError(reason="rotating") while two are valid already.
    """
    hook = deliveries.get_hook(session, webhook_id, actor.projects)
    secret = deliveries.add_secret(session, hook.id, key)
    audit.record(session, actor, Action.WEBHOOK_ROTATE, hook.id, detail=_detail(hook))
    return deliveries.get_hook(session, hook.id, actor.projects), secret


def finish(session: Connection, actor: Actor, key: Secret, webhook_id: str, keep: Keep = "new") -> deliveries.HookView:
    """End a rotation: one secret stays valid. ``keep="old"`` cancels the rotation.

    Raises NotFoundError, ConflictError(reason="not_rotating").
    """
    hook = deliveries.get_hook(session, webhook_id, actor.projects)
    deliveries.drop_secret(session, hook.id, key, keep_new=keep == "new")
    audit.record(session, actor, Action.WEBHOOK_RETIRE, hook.id, detail={**_detail(hook), "kept": keep})
    return deliveries.get_hook(session, hook.id, actor.projects)


def set_disabled(session: Connection, actor: Actor, webhook_id: str, disabled: bool) -> deliveries.HookView:
    """Disable or enable a webhook. A disabled one refuses deliveries; its past ones are kept. Raises NotFoundError."""
    hook = deliveries.get_hook(session, webhook_id, actor.projects)
    deliveries.disable_hook(session, hook.id, disabled)
    action = Action.WEBHOOK_DISABLE if disabled else Action.WEBHOOK_ENABLE
    audit.record(session, actor, action, hook.id, detail={**_detail(hook), "before": hook.disabled, "after": disabled})
    return deliveries.get_hook(session, hook.id, actor.projects)


def remove(session: Connection, actor: Actor, webhook_id: str) -> None:
    """Delete a webhook and its deliveries. The scans that they started are kept. Raises NotFoundError."""
    hook = deliveries.get_hook(session, webhook_id, actor.projects)
    forgotten = deliveries.remove_hook(session, hook.id)
    audit.record(session, actor, Action.WEBHOOK_REMOVE, hook.id, detail={**_detail(hook), "deliveries": forgotten})


def outcome(taken: int, refused: int) -> str:
    """Return the outcome of a delivery for people."""
    return number_of(taken, "image") + (f", {number_of(refused, 'event')} refused" if refused else "")


def event_key(webhook_id: str, event: str) -> str:
    """Return the idempotency key of an event. A repeated delivery leads to the same scan."""
    return f"hook:{webhook_id}:{event}"


def add_alias(
    session: Connection, actor: Actor, key: Secret, delivery_id: str, host: str, engine: str
) -> list[scans.Ticket]:
    """Add the host of refused events to the registry's aliases, and scan the images of those events.

    The registry got a success status for the delivery and does not repeat it. ``engine``: for projects without an
    engine of their own. The caller enqueues created tickets after its transaction. Raises NotFoundError,
    ConflictError(reason="nothing_to_add") if no refused event has that host, and as `registries.change`.
    """
    actor.require_every_project()
    delivery = deliveries.get(session, delivery_id, actor.projects)
    # The host is one that a verified delivery named. A free choice would let a user point a registry's name at any
    # host.
    if host not in delivery.unknown_hosts:
        raise ConflictError("this delivery has no refused event with that host", reason="nothing_to_add")
    registry = registries.find(session, delivery.host)
    assert registry is not None, "a registry with webhooks cannot be removed"
    if host.lower() not in {name.lower() for name in registry.aliases}:
        registry_cases.change(session, actor, key, registry.id, aliases=(*registry.aliases, host))
    meant = [e for e in delivery.refused if e.reason == deliveries.UNKNOWN_REGISTRY and e.host == host]
    owner = projects.owners(session, {f"{registry.host}/{event.repository}" for event in meant})
    requests = []
    for event in meant:
        project = owner[f"{registry.host}/{event.repository}"]
        asked = ScanRequest(
            target=f"{registry.host}/{event.image}",
            lane=Lane.PUSH,
            engine=projects.engine_of(session, project) or engine,
            project=project,
            requested_by=f"webhook {delivery.webhook}",
            source=f"webhook:{delivery.format}",
        )
        requests.append((event_key(delivery.webhook_id, event.key), asked))
    tickets = scans.request_all(session, requests, delivery_id=delivery.id)
    left = [event for event in delivery.refused if event not in meant]
    deliveries.take(session, delivery.id, outcome(len(delivery.scans) + len(tickets), len(left)), left)
    detail = {"registry": registry.host, "alias": host, "scans": [ticket.scan_id for ticket in tickets]}
    audit.record(session, actor, Action.EVENT_TAKE, delivery.id, detail=detail)
    return tickets


def _detail(hook: deliveries.HookView) -> dict[str, object]:
    return {"name": hook.name, "registry": hook.host, "format": hook.format}
