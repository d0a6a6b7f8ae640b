"""Webhooks and what they delivered: an inbox, written before anything is answered, each delivery once."""

from __future__ import annotations

import secrets as random
import uuid
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from scanner.config import Secret
from scanner.errors import NotFoundError
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import delivery, delivery_scan, registry, webhook
from scanner.store.secrets import seal, unseal
from scanner.store.session import moment


@dataclass(frozen=True)
class Hook:
    """A configured webhook with the registry it speaks for. ``secrets`` are those that are accepted now."""

    id: str
    name: str
    format: str
    project: str
    header: str
    secrets: tuple[Secret, ...]
    host: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class HookView:
    """A webhook without its secret."""

    id: str
    name: str
    format: str
    registry_id: str
    host: str
    project: str
    header: str
    created_at: datetime
    disabled: bool


@dataclass(frozen=True)
class Delivery:
    id: str
    created: bool


@dataclass(frozen=True)
class DeliveryView:
    id: str
    webhook: str
    format: str
    host: str
    events: int
    outcome: str
    received_at: datetime
    scans: tuple[str, ...]


def create_hook(
    session: Connection, name: str, format_: str, registry_id: str, key: Secret, *, header: str = "Authorization"
) -> tuple[str, Secret]:
    """A new webhook: its id, and its secret, which is shown once. Raises NotFoundError for a registry that there is not."""
    if session.execute(sa.select(registry.c.id).where(registry.c.id == registry_id)).scalar() is None:
        raise NotFoundError("there is no such registry")
    identifier, secret = str(uuid.uuid4()), Secret("dwh_" + random.token_urlsafe(32))
    session.execute(
        webhook.insert().values(
            id=identifier, name=name[:200], format=format_, registry_id=registry_id, header=header, secret=seal(secret, key, _place(identifier)),
            created_at=moment(session), disabled=False,
        )
    )  # fmt: skip
    return identifier, secret


def list_hooks(session: Connection, projects: frozenset[str] | None) -> tuple[HookView, ...]:
    """Every webhook of these projects' registries, by registry and name."""
    columns = (
        webhook.c.id, webhook.c.name, webhook.c.format, webhook.c.registry_id, registry.c.host, registry.c.project, webhook.c.header,
        webhook.c.created_at, webhook.c.disabled,
    )  # fmt: skip
    query = sa.select(*columns).join(registry, registry.c.id == webhook.c.registry_id)
    if projects is not None:
        query = query.where(registry.c.project.in_(projects))
    return tuple(HookView(*row) for row in session.execute(query.order_by(registry.c.host, webhook.c.name)))


def get_hook(session: Connection, identifier: str, projects: frozenset[str] | None) -> HookView:
    """Raises NotFoundError, also for another project's."""
    found = next((hook for hook in list_hooks(session, projects) if hook.id == identifier), None)
    if found is None:
        raise NotFoundError("there is no such webhook")
    return found


def disable_hook(session: Connection, identifier: str, disabled: bool) -> None:
    """A disabled webhook takes no delivery; what it delivered stays."""
    session.execute(webhook.update().where(webhook.c.id == identifier).values(disabled=disabled))


def hooks(session: Connection, format_: str, key: Secret) -> tuple[Hook, ...]:
    """Every enabled webhook of a format."""
    columns = (
        webhook.c.id,
        webhook.c.name,
        webhook.c.format,
        webhook.c.header,
        webhook.c.secret,
        registry.c.host,
        registry.c.aliases,
        registry.c.project,
    )
    rows = session.execute(
        sa.select(*columns)
        .join(registry, registry.c.id == webhook.c.registry_id)
        .where(webhook.c.format == format_, webhook.c.disabled.is_(False))
    )
    return tuple(
        Hook(
            r.id,
            r.name,
            r.format,
            r.project,
            r.header,
            (unseal(r.secret, key, _place(r.id)),),
            r.host,
            tuple(r.aliases),
        )
        for r in rows
    )


def record(session: Connection, hook_id: str, key: str, events: int, outcome: str) -> Delivery:
    """Write a delivery down, once for its key (the sender's id of it, or the digest of its body)."""
    identifier = str(uuid.uuid4())
    try:
        with session.begin_nested():
            session.execute(
                delivery.insert().values(
                    id=identifier,
                    webhook_id=hook_id,
                    key=key[:128],
                    events=events,
                    outcome=outcome[:200],
                    received_at=moment(session),
                )
            )
    except IntegrityError:
        known = session.execute(
            sa.select(delivery.c.id).where(delivery.c.webhook_id == hook_id, delivery.c.key == key[:128])
        ).scalar_one()
        return Delivery(known, created=False)
    return Delivery(identifier, created=True)


def get(session: Connection, identifier: str, projects: frozenset[str] | None) -> DeliveryView:
    """Raises NotFoundError, also for another project's."""
    found = list_(session, projects, identifier=identifier, limit=1).items
    if not found:
        raise NotFoundError("there is no such delivery")
    return found[0]


def list_(
    session: Connection, projects: frozenset[str] | None, *, identifier: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[DeliveryView]:  # fmt: skip
    """Deliveries, newest first, with the scans they led to."""
    columns = (
        delivery.c.id,
        webhook.c.name,
        webhook.c.format,
        registry.c.host,
        delivery.c.events,
        delivery.c.outcome,
        delivery.c.received_at,
    )
    query = (
        sa.select(*columns)
        .join(webhook, webhook.c.id == delivery.c.webhook_id)
        .join(registry, registry.c.id == webhook.c.registry_id)
    )
    if projects is not None:
        query = query.where(registry.c.project.in_(projects))
    if identifier is not None:
        query = query.where(delivery.c.id == identifier)
    if cursor:
        at, identifier = decode_cursor(cursor, (str, str))
        query = query.where(
            sa.tuple_(delivery.c.received_at, delivery.c.id)
            < sa.tuple_(sa.literal(datetime.fromisoformat(at), delivery.c.received_at.type), sa.literal(identifier))
        )
    rows = session.execute(query.order_by(delivery.c.received_at.desc(), delivery.c.id.desc()).limit(limit + 1)).all()
    links: dict[str, list[str]] = {}
    for pair in session.execute(
        sa.select(*delivery_scan.c).where(delivery_scan.c.delivery_id.in_([r.id for r in rows]))
    ):
        links.setdefault(pair.delivery_id, []).append(pair.scan_id)
    items = tuple(DeliveryView(*row, scans=tuple(links.get(row.id, ()))) for row in rows[:limit])
    return Page(
        items, encode_cursor(rows[limit - 1].received_at.isoformat(), rows[limit - 1].id) if len(rows) > limit else None
    )


def _place(identifier: str) -> str:
    return f"webhook|{identifier}|secret"
