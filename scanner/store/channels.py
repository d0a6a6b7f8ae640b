"""Configured notification channels, and who subscribed to what. Secrets are encrypted; the API never reads them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from scanner.config import Secret
from scanner.errors import NotFoundError
from scanner.store.schema import notification, notification_channel, notification_subscription
from scanner.store.secrets import seal, unseal
from scanner.store.session import epoch, moment

_c, _s = notification_channel.c, notification_subscription.c
ENDED = ("sent", "dead")


@dataclass(frozen=True)
class ChannelView:
    """A channel without its secrets.

    ``project`` empty: events of every project. ``failures`` since the last delivery; ``message`` says why.
    ``has_secrets``: the names of the secret fields that are set are not kept in the clear.
    """

    id: str
    name: str
    format: str
    project: str
    settings: Mapping[str, str]  # without secrets
    has_secrets: bool
    disabled: bool
    created_by: str
    created_at: datetime
    failures: int
    delivered_at: datetime | None
    message: str
    paused_until: float | None  # seconds since 1970; None: not paused
    waiting: int = 0  # messages that are still to be sent
    dead: int = 0  # messages that were given up


@dataclass(frozen=True)
class SubscriptionView:
    """``owner_id`` empty: shared. ``kinds`` empty: every kind. ``condition``: CEL; empty: every event."""

    id: str
    channel_id: str
    channel: str
    format: str
    channel_project: str
    name: str
    project: str
    owner_id: str
    owner: str
    recipient: str  # for channels to persons; empty: the channel's own address
    kinds: tuple[str, ...]
    condition: str
    digest: str  # hourly, daily, or empty: each message at once
    group_seconds: int  # events within this time share a message
    quiet_from: str  # HH:MM in ``timezone``; empty: no quiet time
    quiet_to: str
    timezone: str
    disabled: bool
    created_by: str
    created_at: datetime


def add(
    session: Connection,
    key: Secret,
    *,
    name: str,
    format_: str,
    project: str,
    settings: Mapping[str, str],
    secrets: Mapping[str, Secret],
    created_by: str,
) -> str:
    """Returns the new channel's id."""
    identifier = str(uuid.uuid4())
    session.execute(
        notification_channel.insert().values(
            id=identifier,
            name=name,
            format=format_,
            project=project,
            settings=dict(settings),
            secrets=_sealed_secrets(secrets, key, identifier),
            created_by=created_by[:200],
            created_at=moment(session),
        )
    )
    return identifier


def change(
    session: Connection,
    key: Secret,
    identifier: str,
    *,
    name: str,
    settings: Mapping[str, str],
    secrets: Mapping[str, Secret],
) -> None:
    """Replace settings and secrets. What waits is tried at once. Raises NotFoundError."""
    _update(
        session,
        identifier,
        name=name,
        settings=dict(settings),
        secrets=_sealed_secrets(secrets, key, identifier),
        paused_until=None,
    )


def set_disabled(session: Connection, identifier: str, disabled: bool) -> None:
    """Raises NotFoundError."""
    _update(session, identifier, disabled=disabled, paused_until=None)


def retry_waiting(session: Connection, identifier: str) -> None:
    """A test was delivered: what waits is tried at once."""
    _update(session, identifier, failures=0, paused_until=None, message="")


def _update(session: Connection, identifier: str, **values: Any) -> None:
    changed = notification_channel.update().where(_c.id == identifier).values(**values)
    if session.execute(changed).rowcount != 1:
        raise NotFoundError("there is no such channel")


def remove(session: Connection, identifier: str) -> None:
    """With its subscriptions and the record of its messages. Raises NotFoundError."""
    if session.execute(notification_channel.delete().where(_c.id == identifier)).rowcount != 1:
        raise NotFoundError("there is no such channel")


def get(session: Connection, identifier: str) -> ChannelView:
    """Raises NotFoundError."""
    found = _channels(session, _c.id == identifier)
    if not found:
        raise NotFoundError("there is no such channel")
    return found[0]


def list_channels(session: Connection) -> tuple[ChannelView, ...]:
    """Every channel, by name."""
    return _channels(session, sa.true())


def secrets(session: Connection, identifier: str, key: Secret) -> dict[str, Secret]:
    """For deliveries; no page or answer ever holds them. Raises ScannerError(reason="secret_unreadable")."""
    sealed = session.execute(sa.select(_c.secrets).where(_c.id == identifier)).scalar()
    if not sealed:
        return {}
    found = json.loads(unseal(sealed, key, _place(identifier)).reveal())
    return {name: Secret(value) for name, value in found.items()}


def _sealed_secrets(secrets: Mapping[str, Secret], key: Secret, identifier: str) -> bytes | None:
    plain = {name: value.reveal() for name, value in secrets.items() if value}
    # One ciphertext for all fields: neither their names nor their number can be read from the database.
    return seal(Secret(json.dumps(plain)), key, _place(identifier)) if plain else None


def _place(identifier: str) -> str:
    return f"notification_channel|{identifier}|secrets"


def _channels(session: Connection, where: sa.ColumnElement[bool]) -> tuple[ChannelView, ...]:
    counted = (
        sa.select(notification.c.channel_id, notification.c.state, sa.func.count().label("count"))
        .where(notification.c.state != "sent")
        .group_by(notification.c.channel_id, notification.c.state)
    )
    waiting: dict[str, int] = {}
    dead: dict[str, int] = {}
    for row in session.execute(counted):
        into = dead if row.state == "dead" else waiting
        into[row.channel_id] = into.get(row.channel_id, 0) + row._mapping["count"]
    rows = session.execute(sa.select(*_c).where(where).order_by(_c.name, _c.id))
    return tuple(_channel(row._mapping, waiting.get(row.id, 0), dead.get(row.id, 0)) for row in rows)


def _channel(row: RowMapping, waiting: int, dead: int) -> ChannelView:
    own = {name: row[name] for name in ChannelView.__dataclass_fields__ if name in row}
    values: dict[str, Any] = {**own, "has_secrets": row["secrets"] is not None, "waiting": waiting, "dead": dead}
    return ChannelView(**values)


# Subscriptions


def subscribe(session: Connection, channel_id: str, values: Mapping[str, Any]) -> str:
    """Returns the new subscription's id."""
    identifier = str(uuid.uuid4())
    session.execute(
        notification_subscription.insert().values(
            id=identifier, channel_id=channel_id, created_at=moment(session), **values
        )
    )
    return identifier


def change_subscription(session: Connection, identifier: str, values: Mapping[str, Any]) -> None:
    """Raises NotFoundError."""
    changed = notification_subscription.update().where(_s.id == identifier).values(**values)
    if session.execute(changed).rowcount != 1:
        raise NotFoundError("there is no such subscription")


def unsubscribe(session: Connection, identifier: str) -> None:
    """End it. What waited for it is not sent. Raises NotFoundError."""
    if session.execute(notification_subscription.delete().where(_s.id == identifier)).rowcount != 1:
        raise NotFoundError("there is no such subscription")
    # What was sent stays on the page of deliveries. What waits must not arrive after its receiver has unsubscribed.
    waiting = (notification.c.subscription_id == identifier, notification.c.state.not_in(ENDED))
    session.execute(notification.delete().where(*waiting))


def subscription(session: Connection, identifier: str) -> SubscriptionView:
    """Raises NotFoundError."""
    found = _subscriptions(session, _s.id == identifier)
    if not found:
        raise NotFoundError("there is no such subscription")
    return found[0]


def subscriptions(session: Connection, *, active: bool = False) -> tuple[SubscriptionView, ...]:
    """Every subscription; ``active``: without those that are disabled, or whose channel is."""
    return _subscriptions(session, sa.and_(_s.disabled.is_(False), _c.disabled.is_(False)) if active else sa.true())


def _subscriptions(session: Connection, where: sa.ColumnElement[bool]) -> tuple[SubscriptionView, ...]:
    query = (
        sa.select(*_s, _c.name.label("channel"), _c.format, _c.project.label("channel_project"))
        .join(notification_channel, _c.id == _s.channel_id)
        .where(where)
        .order_by(_s.created_at, _s.id)
    )
    return tuple(map(_subscription, session.execute(query).mappings()))


def _subscription(row: RowMapping) -> SubscriptionView:
    values: dict[str, Any] = {name: row[name] for name in SubscriptionView.__dataclass_fields__}
    return SubscriptionView(**{**values, "kinds": tuple(row["kinds"])})


# Leases


@dataclass(frozen=True)
class HeldChannel:
    """A worker's hold on a channel. Every write names ``fence``."""

    channel_id: str
    fence: int


def any_due(session: Connection) -> bool:
    """Whether a channel that no worker holds has something to send."""
    return session.execute(_due(epoch(session))).first() is not None


def _due(now: float) -> sa.Select[Any]:
    """The channel whose message has waited longest."""
    due = (
        sa.select(sa.func.min(notification.c.next_at))
        .where(
            notification.c.channel_id == _c.id,
            notification.c.state.in_(("collecting", "waiting", "sending")),
            notification.c.next_at <= now,
        )
        .scalar_subquery()
    )
    free = sa.and_(
        _c.disabled.is_(False),
        sa.or_(_c.lease_until.is_(None), _c.lease_until < now),
        sa.or_(_c.paused_until.is_(None), _c.paused_until <= now),
        due.is_not(None),
    )
    return sa.select(_c.id).where(free).order_by(due, _c.id).limit(1)


def claim(session: Connection, worker: str, seconds: float) -> HeldChannel | None:
    """Take the channel whose message has waited longest. None: there is nothing to send."""
    now = epoch(session)
    chosen = _due(now)
    if session.dialect.name != "sqlite":
        chosen = chosen.with_for_update(skip_locked=True)
    identifier = session.execute(chosen).scalar()
    if identifier is None:
        return None
    taken = (
        notification_channel.update()
        .where(_c.id == identifier)
        .values(fence=_c.fence + 1, worker=worker[:100], lease_until=now + seconds)
        .returning(_c.fence)
    )
    fence = session.execute(taken).scalar_one()
    # The worker before was killed, or was too slow: what it may have sent is sent again, under the same id.
    lost = (notification.c.channel_id == identifier, notification.c.state == "sending")
    session.execute(notification.update().where(*lost).values(state="waiting"))
    return HeldChannel(identifier, fence)


def failures(session: Connection, held: HeldChannel) -> int | None:
    """How often the channel failed in a row; None: it is gone."""
    found: int | None = session.execute(sa.select(_c.failures).where(_c.id == held.channel_id)).scalar()
    return found


def write(session: Connection, held: HeldChannel, **values: Any) -> bool:
    """A write under the fence. False: the channel is another worker's by now, or is gone."""
    mine = (_c.id == held.channel_id, _c.fence == held.fence)
    return session.execute(notification_channel.update().where(*mine).values(**values)).rowcount == 1
