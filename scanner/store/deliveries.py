"""Webhooks and their deliveries. A delivery is recorded before it is acknowledged, and once per key."""

from __future__ import annotations

import secrets as random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError
from scanner.store.page import Page, cursor_moment, decode_cursor, encode_cursor
from scanner.store.schema import delivery, delivery_scan, registry, webhook
from scanner.store.secrets import seal, unseal
from scanner.store.session import moment, new_id

UNKNOWN_REGISTRY = "unknown_registry"  # a reason: the event's host is not the webhook's registry
# Refused events of a delivery that are stored; the outcome counts all.
_REFUSED_KEPT = 100


@dataclass(frozen=True)
class Hook:
    """An enabled webhook with its registry. ``secrets``: the valid ones, two during a rotation."""

    id: str
    name: str
    format: str
    project: str
    header: str  # the HTTP header with the secret; empty: the URL contains it
    secrets: tuple[Secret, ...]
    host: str  # of the registry, with its port
    aliases: tuple[str, ...]  # other hosts that the registry's events may name
    sender: str = ""  # required signer, for formats whose sender signs by itself; empty: none


@dataclass(frozen=True)
class HookView:
    """A webhook without its secrets.

    ``rotating_since``: since then two secrets are valid; None: one.
    """

    id: str
    name: str
    format: str
    registry_id: str
    host: str
    project: str
    header: str  # the HTTP header with the secret; empty: the URL contains it
    created_at: datetime
    disabled: bool
    rotating_since: datetime | None = None
    last_delivery: datetime | None = None  # None: never
    sender: str = ""  # required signer, for formats whose sender signs by itself; empty: none


@dataclass(frozen=True)
class Delivery:
    id: str
    created: bool


@dataclass(frozen=True)
class RefusedEvent:
    """A refused event of a delivery. The fields are untrusted text from the payload, for display only."""

    reason: str  # a slug
    message: str
    host: str = ""
    repository: str = ""
    tag: str = ""
    digest: str = ""
    key: str = ""  # equal for repeated deliveries of the event

    @property
    def image(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class DeliveryView:
    """A delivery with its scans. ``refused`` contains the first refused events; ``outcome`` their number."""

    id: str
    webhook: str  # its name
    format: str
    host: str  # of the registry
    events: int  # how many the body had
    outcome: str
    received_at: datetime
    webhook_id: str = ""
    refused: tuple[RefusedEvent, ...] = ()
    scans: tuple[str, ...] = ()  # ids of the scans that it requested

    @property
    def unknown_hosts(self) -> tuple[str, ...]:
        """Return the hosts of refused events. Each may be an alias of the registry."""
        return tuple(dict.fromkeys(event.host for event in self.refused if event.reason == UNKNOWN_REGISTRY))


def create_hook(
    session: Connection, name: str, format_: str, registry_id: str, key: Secret, *, header: str = "", sender: str = ""
) -> tuple[str, Secret]:
    """Create a webhook and return its id and secret. ``header`` empty: the format's default.

    Raises NotFoundError for an unknown registry.
    """
    if session.execute(sa.select(registry.c.id).where(registry.c.id == registry_id)).scalar() is None:
        raise NotFoundError("there is no such registry")
    identifier, secret = str(uuid.uuid4()), _new_secret()
    session.execute(
        webhook.insert().values(
            id=identifier,
            name=name[:200],
            format=format_,
            registry_id=registry_id,
            header=header,
            sender=sender,
            secret=seal(secret, key, _place(identifier)),
            created_at=moment(session),
            disabled=False,
        )
    )
    return identifier, secret


def list_hooks(session: Connection, projects: frozenset[str] | None) -> tuple[HookView, ...]:
    """Return the webhooks of the projects' registries, ordered by registry and name."""
    columns = (
        webhook.c.id,
        webhook.c.name,
        webhook.c.format,
        webhook.c.registry_id,
        registry.c.host,
        registry.c.project,
        webhook.c.header,
        webhook.c.created_at,
        webhook.c.disabled,
        webhook.c.rotated_at,
        sa.select(sa.func.max(delivery.c.received_at)).where(delivery.c.webhook_id == webhook.c.id).scalar_subquery(),
        webhook.c.sender,
    )
    query = sa.select(*columns).join(registry, registry.c.id == webhook.c.registry_id)
    if projects is not None:
        query = query.where(registry.c.project.in_(projects))
    return tuple(HookView(*row) for row in session.execute(query.order_by(registry.c.host, webhook.c.name)))


def get_hook(session: Connection, identifier: str, projects: frozenset[str] | None) -> HookView:
    """Return the webhook. Raises NotFoundError, also for another project's."""
    found = next((hook for hook in list_hooks(session, projects) if hook.id == identifier), None)
    if found is None:
        raise NotFoundError("there is no such webhook")
    return found


def disable_hook(session: Connection, identifier: str, disabled: bool) -> None:
    """Disable or enable a webhook. Its past deliveries are kept."""
    session.execute(webhook.update().where(webhook.c.id == identifier).values(disabled=disabled))


def add_secret(session: Connection, identifier: str, key: Secret) -> Secret:
    """Add a second secret and return it. The first stays valid.

    Raises ConflictError(reason="rotating") if there are two already.
    """
    one = webhook.c.id == identifier
    former, known = session.execute(sa.select(webhook.c.secret, webhook.c.previous_secret).where(one)).one()
    secret = _new_secret()
    values = {
        "secret": seal(secret, key, _place(identifier)),
        # Encrypted again for its new column: the place is authenticated, so that a ciphertext cannot be moved by
        # hand.
        "previous_secret": seal(unseal(former, key, _place(identifier)), key, _previous_place(identifier)),
        "rotated_at": moment(session),
    }
    # Conditional: the second of two concurrent rotations must not replace the secret that the registry uses.
    changed = webhook.update().where(one, webhook.c.previous_secret.is_(None)).values(**values)
    if known is not None or session.execute(changed).rowcount != 1:
        raise ConflictError(
            "this webhook has two valid secrets already",
            reason="rotating",
            hint="finish the rotation first: keep the new secret or the old one",
        )
    return secret


def drop_secret(session: Connection, identifier: str, key: Secret, *, keep_new: bool) -> None:
    """End a rotation with one of the two secrets. Raises ConflictError(reason="not_rotating")."""
    one = webhook.c.id == identifier
    former = session.execute(sa.select(webhook.c.previous_secret).where(one)).scalar()
    if former is None:
        raise ConflictError("this webhook has only one secret", reason="not_rotating", hint="rotate it first")
    values: dict[str, object] = {"previous_secret": None, "rotated_at": None}
    if not keep_new:
        values["secret"] = seal(unseal(former, key, _previous_place(identifier)), key, _place(identifier))
    session.execute(webhook.update().where(one).values(**values))


def remove_hook(session: Connection, identifier: str) -> int:
    """Delete a webhook and its deliveries, but not their scans. Returns the number of deliveries."""
    mine = sa.select(delivery.c.id).where(delivery.c.webhook_id == identifier)
    session.execute(delivery_scan.delete().where(delivery_scan.c.delivery_id.in_(mine)))
    count = session.execute(delivery.delete().where(delivery.c.webhook_id == identifier)).rowcount
    session.execute(webhook.delete().where(webhook.c.id == identifier))
    return count


def hooks(session: Connection, format_: str, key: Secret) -> tuple[Hook, ...]:
    """Return the enabled webhooks of a format with their secrets."""
    columns = (
        webhook.c.id,
        webhook.c.name,
        webhook.c.format,
        webhook.c.header,
        webhook.c.secret,
        webhook.c.previous_secret,
        registry.c.host,
        registry.c.aliases,
        registry.c.project,
        webhook.c.sender,
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
            unsealed_secrets(r.id, r.secret, r.previous_secret, key),
            r.host,
            tuple(r.aliases),
            r.sender,
        )
        for r in rows
    )


def unsealed_secrets(identifier: str, secret: bytes, previous: bytes | None, key: Secret) -> tuple[Secret, ...]:
    """Return the valid secrets of a webhook's row."""
    current = unseal(secret, key, _place(identifier))
    return (current, unseal(previous, key, _previous_place(identifier))) if previous else (current,)


def record(
    session: Connection, hook_id: str, key: str, events: int, outcome: str, refused: Sequence[RefusedEvent] = ()
) -> Delivery:
    """Record a delivery, once per ``key`` (the sender's delivery id, or the digest of the body).

    A repeated delivery updates the outcome. Raises NotFoundError if the webhook was deleted in the meantime.
    """
    identifier = new_id()
    said = {"outcome": outcome[:200], "refused": _refused_json(refused)}
    try:
        with session.begin_nested():
            session.execute(
                delivery.insert().values(
                    id=identifier,
                    webhook_id=hook_id,
                    key=key[:128],
                    events=events,
                    **said,
                    received_at=moment(session),
                )
            )
    except IntegrityError:
        known = session.execute(
            sa.select(delivery.c.id).where(delivery.c.webhook_id == hook_id, delivery.c.key == key[:128])
        ).scalar()
        if known is None:  # the other constraint: an administrator deleted the webhook after it was authenticated
            raise NotFoundError("there is no such webhook") from None
        session.execute(delivery.update().where(delivery.c.id == known).values(**said))
        return Delivery(known, created=False)
    return Delivery(identifier, created=True)


def record_test(session: Connection, hook_id: str, outcome: str) -> None:
    """Record a test delivery. Only the newest one is kept."""
    # One fixed key for all test deliveries of a webhook: people send many of them while they set it up.
    told = record(session, hook_id, "test", 1, outcome)
    if not told.created:
        session.execute(delivery.update().where(delivery.c.id == told.id).values(received_at=moment(session)))


def take(session: Connection, delivery_id: str, outcome: str, refused: Sequence[RefusedEvent]) -> None:
    """Update a delivery after some of its refused events were accepted. ``refused`` are the remaining ones."""
    values = {"outcome": outcome[:200], "refused": _refused_json(refused)}
    session.execute(delivery.update().where(delivery.c.id == delivery_id).values(**values))


def _refused_json(refused: Sequence[RefusedEvent]) -> list[dict[str, str]]:
    bounded = ({name: value[:300] for name, value in asdict(event).items()} for event in refused[:_REFUSED_KEPT])
    return list(bounded)


def get(session: Connection, identifier: str, projects: frozenset[str] | None) -> DeliveryView:
    """Return the delivery. Raises NotFoundError, also for another project's."""
    found = list_deliveries(session, projects, identifier=identifier, limit=1).items
    if not found:
        raise NotFoundError("there is no such delivery")
    return found[0]


def list_deliveries(
    session: Connection,
    projects: frozenset[str] | None,
    *,
    identifier: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[DeliveryView]:
    """Return deliveries, the newest first, with the ids of their scans."""
    columns = (
        delivery.c.id,
        webhook.c.name,
        webhook.c.format,
        registry.c.host,
        delivery.c.events,
        delivery.c.outcome,
        delivery.c.received_at,
        webhook.c.id.label("webhook_id"),
        delivery.c.refused,
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
        at, identifier = decode_cursor(cursor, (cursor_moment, str))
        query = query.where(
            sa.tuple_(delivery.c.received_at, delivery.c.id)
            < sa.tuple_(sa.literal(at, delivery.c.received_at.type), sa.literal(identifier))
        )
    rows = session.execute(query.order_by(delivery.c.received_at.desc(), delivery.c.id.desc()).limit(limit + 1)).all()
    links: dict[str, list[str]] = {}
    for pair in session.execute(
        sa.select(*delivery_scan.c).where(delivery_scan.c.delivery_id.in_([r.id for r in rows]))
    ):
        links.setdefault(pair.delivery_id, []).append(pair.scan_id)
    items = tuple(
        DeliveryView(*row[:-1], tuple(RefusedEvent(**item) for item in row.refused), tuple(links.get(row.id, ())))
        for row in rows[:limit]
    )
    return Page(
        items, encode_cursor(rows[limit - 1].received_at.isoformat(), rows[limit - 1].id) if len(rows) > limit else None
    )


def _new_secret() -> Secret:
    return Secret("dwh_" + random.token_urlsafe(32))


def _place(identifier: str) -> str:
    return f"webhook|{identifier}|secret"


def _previous_place(identifier: str) -> str:
    return f"webhook|{identifier}|previous_secret"
