"""Notifications: channels, subscriptions, what was sent, and dead letters. A channel's secrets are write-only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, StringConstraints

from scanner import catalog
from scanner.model.notification import SUBSCRIBABLE, EventKind
from scanner.services import notifications as use_cases
from scanner.store import channels, notifications
from web.api.base import PREFIX, Body, Model, Name, PageQuery, Text, Whole, answer, blueprint, page_of, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("notifications", "Notifications", "Messages to people and to other systems.")

_Value = Annotated[str, StringConstraints(max_length=64 << 10, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]
_Settings = Annotated[dict[str, _Value], Field(max_length=30)]
_Condition = Annotated[
    str, StringConstraints(max_length=use_cases.CONDITION_LENGTH, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")
]
_Clock = Annotated[str, StringConstraints(pattern=rf"^$|{use_cases.CLOCK}")]
_Project = Annotated[str, StringConstraints(pattern=r"^$|^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$", max_length=64)]
State = Literal["collecting", "waiting", "sending", "sent", "dead"]


class ChannelFieldOut(Model):
    name: str
    label: str
    required: bool
    secret: bool = Field(description="Stored encrypted, and in no answer.")
    default: str
    choices: list[str]
    example: str
    hint: str


class ChannelFormatOut(Model):
    id: str
    title: str
    purpose: str
    setup: str
    per_person: bool = Field(description="People may subscribe with addresses of their own.")
    fields: list[ChannelFieldOut]


class EventKindOut(Model):
    id: str
    title: str


class ChannelFormatList(Model):
    items: list[ChannelFormatOut]
    kinds: list[EventKindOut] = Field(description="The kinds of events that a subscription may name.")


class ChannelIn(Body):
    name: Annotated[Text, Field(min_length=1, max_length=use_cases.NAME_LENGTH)]
    format: Name
    project: _Project = Field("", description="Only this project's events. Empty: every project's.")
    settings: _Settings = Field(description="The format's fields, secrets included: see `formats`.")


class ChannelChange(Body):
    name: Annotated[Text, Field(min_length=1, max_length=use_cases.NAME_LENGTH)]
    settings: _Settings = Field(description="Every field. A secret that is left out stays as it is.")


class ChannelOut(Model):
    id: UUID
    name: str
    format: str
    project: str
    settings: dict[str, str] = Field(description="Without the secrets.")
    has_secrets: bool
    disabled: bool
    created_by: str
    created_at: datetime
    failures: int = Field(description="In a row, since the last delivery.")
    delivered_at: datetime | None
    message: str = Field(description="Why the last attempt failed. Empty: it did not.")
    waiting: int
    dead: int = Field(description="Messages that were given up. They can be sent again.")


class ChannelList(Model):
    items: list[ChannelOut]


class ChannelTestIn(Body):
    recipient: Annotated[Text, Field(max_length=use_cases.RECIPIENT_LENGTH)] = Field(
        "", description="A person's own address, for formats that have them. Empty: the channel's."
    )


class ChannelTestOut(Model):
    delivered: bool
    status: str
    message: str
    answer: str = Field(description="What the receiver answered, without secrets.")
    hint: str


class SubscriptionIn(Body):
    channel: UUID = Field(strict=False)
    name: Annotated[Text, Field(max_length=use_cases.NAME_LENGTH)] = ""
    project: _Project = Field("", description="Only this project's events.")
    personal: bool = Field(False, description="For your own address, on a channel that allows it.")
    recipient: Annotated[Text, Field(max_length=use_cases.RECIPIENT_LENGTH)] = ""
    kinds: list[Annotated[str, StringConstraints(max_length=64)]] = Field([], max_length=50, description="Empty: all.")
    condition: _Condition = Field("", description="A CEL expression on `event`. Empty: every event.")
    digest: Literal["", "hourly", "daily"] = ""
    group_seconds: Whole = Field(
        use_cases.GROUP_SECONDS,
        ge=0,
        le=use_cases.GROUP_SECONDS_MOST,
        description="How long a message waits for more events of its cause.",
    )
    quiet_from: _Clock = Field("", description="Messages wait from this time of day, such as 22:00.")
    quiet_to: _Clock = ""
    timezone: Annotated[Text, Field(max_length=64)] = "UTC"
    disabled: bool = False


class SubscriptionOut(Model):
    id: UUID
    channel: UUID
    channel_name: str
    name: str
    project: str
    owner: str = Field(description="Empty: it is shared.")
    recipient: str
    kinds: list[str]
    condition: str
    digest: str
    group_seconds: int
    quiet_from: str
    quiet_to: str
    timezone: str
    disabled: bool
    created_by: str
    created_at: datetime


class SubscriptionList(Model):
    items: list[SubscriptionOut]


class NotificationOut(Model):
    id: UUID = Field(description="What the receiver sees, the same at every attempt.")
    channel: UUID
    channel_name: str
    project: str
    kind: str
    title: str
    level: str
    resolved: bool
    events: int
    state: State
    attempts: int
    next_at: datetime | None = Field(description="When the next attempt begins; null: there is none.")
    created_at: datetime
    ended_at: datetime | None
    status: str
    reason: str
    message: str
    answer: str


class NotificationList(Model):
    items: list[NotificationOut]
    next_cursor: str | None


class NotificationQuery(PageQuery):
    state: State | None = None
    channel: UUID | None = None


class ReplayedOut(Model):
    deliveries: int


class ChannelPath(Model):
    channel_id: UUID


class SubscriptionPath(Model):
    subscription_id: UUID


class NotificationPath(Model):
    delivery_id: UUID


def show_channel(found: channels.ChannelView) -> ChannelOut:
    values = {name: getattr(found, name) for name in ChannelOut.model_fields if name not in ("id", "settings")}
    return ChannelOut(id=UUID(found.id), settings=dict(found.settings), **values)


def show_subscription(found: channels.SubscriptionView) -> SubscriptionOut:
    # The view's ``channel`` is a name; the API's is an id, so that a channel can be renamed.
    special = ("id", "channel", "channel_name", "kinds")
    values = {name: getattr(found, name) for name in SubscriptionOut.model_fields if name not in special}
    return SubscriptionOut(
        id=UUID(found.id),
        channel=UUID(found.channel_id),
        channel_name=found.channel,
        kinds=list(found.kinds),
        **values,
    )


def show_delivery(found: notifications.NotificationView) -> NotificationOut:
    over = found.state in channels.ENDED
    return NotificationOut(
        id=UUID(found.uid),
        channel=UUID(found.channel_id),
        channel_name=found.channel,
        project=found.project,
        kind=found.kind,
        title=found.title,
        level=found.level.value,
        resolved=found.resolved,
        events=found.count,
        state=found.state,
        attempts=found.attempt,
        next_at=None if over else datetime.fromtimestamp(found.next_at, UTC),
        created_at=found.created_at,
        ended_at=found.ended_at,
        status=found.status,
        reason=found.reason,
        message=found.message,
        answer=found.answer,
    )


@api.get("/notifications/formats", responses={"200": ChannelFormatList})
@permission("read")
def formats() -> Response:
    """List the formats of channels and the kinds of events"""
    items = [
        ChannelFormatOut(
            id=form.id,
            title=form.title,
            purpose=form.purpose,
            setup=form.setup,
            per_person=form.per_person,
            fields=[
                ChannelFieldOut(
                    name=one.name,
                    label=one.label,
                    required=one.required,
                    secret=one.secret,
                    default=one.default,
                    choices=list(one.choices),
                    example=one.example,
                    hint=one.hint,
                )
                for one in form.fields
            ],
        )
        for form in catalog.channels().values()
    ]
    return answer(ChannelFormatList(items=items, kinds=[_kind(kind) for kind in SUBSCRIBABLE]))


def _kind(kind: EventKind) -> EventKindOut:
    return EventKindOut(id=kind.value, title=kind.label)


@api.get("/notifications/channels", responses={"200": ChannelList})
@permission("manage")
def list_channels() -> Response:
    """List channels"""
    with resources().database.read() as session:
        return answer(ChannelList(items=page_of(use_cases.configurable_channels(session, principal()), show_channel)))


@api.post("/notifications/channels", responses={"201": ChannelOut, **problems(404)})
@permission("manage")
def create_channel(body: ChannelIn) -> Response:
    """Configure a channel

    Its addresses are resolved and checked. Its secrets are in no answer.
    """
    own = resources()
    made = use_cases.create(
        own.database,
        own.settings,
        own.secret_key,
        principal(),
        name=body.name,
        format_=body.format,
        values=body.settings,
        project=body.project,
    )
    return answer(show_channel(made), 201, {"Location": f"{PREFIX}/notifications/channels/{made.id}"})


@api.get("/notifications/channels/<uuid:channel_id>", responses={"200": ChannelOut, **problems(404)})
@permission("manage")
def get_channel(path: ChannelPath) -> Response:
    """Read a channel, without its secrets"""
    with resources().database.read() as session:
        return answer(show_channel(use_cases.visible(session, principal(), str(path.channel_id))))


@api.put("/notifications/channels/<uuid:channel_id>", responses={"200": ChannelOut, **problems(404)})
@permission("manage")
def change_channel(path: ChannelPath, body: ChannelChange) -> Response:
    """Change a channel

    Where the address becomes another host, its secrets must be given again.
    """
    own = resources()
    changed = use_cases.change(
        own.database,
        own.settings,
        own.secret_key,
        principal(),
        str(path.channel_id),
        name=body.name,
        values=body.settings,
    )
    return answer(show_channel(changed))


@api.delete("/notifications/channels/<uuid:channel_id>", responses={"204": None, **problems(404)})
@permission("manage")
def remove_channel(path: ChannelPath) -> Response:
    """Delete a channel

    With its subscriptions and the record of its deliveries.
    """
    with resources().database.session() as session:
        use_cases.remove(session, principal(), str(path.channel_id))
    return Response(status=204)


@api.post("/notifications/channels/<uuid:channel_id>/test", responses={"200": ChannelTestOut, **problems(404)})
@permission("manage")
def send_test(path: ChannelPath, body: ChannelTestIn) -> Response:
    """Send a test

    Sent at once. The answer says what the receiver answered.
    """
    own = resources()
    tested = use_cases.send_test(
        own.database, own.settings, own.secret_key, principal(), str(path.channel_id), body.recipient
    )
    return answer(
        ChannelTestOut(
            delivered=tested.delivered,
            status=tested.status,
            message=tested.message,
            answer=tested.answer,
            hint=tested.hint,
        )
    )


@api.post("/notifications/channels/<uuid:channel_id>/disable", responses={"200": ChannelOut, **problems(404)})
@permission("manage")
def disable_channel(path: ChannelPath) -> Response:
    """Disable a channel

    Nothing is sent. What waits, waits on.
    """
    return _set_disabled(path, True)


@api.post("/notifications/channels/<uuid:channel_id>/enable", responses={"200": ChannelOut, **problems(404)})
@permission("manage")
def enable_channel(path: ChannelPath) -> Response:
    """Enable a channel

    What waits is sent.
    """
    return _set_disabled(path, False)


def _set_disabled(path: ChannelPath, disabled: bool) -> Response:
    with resources().database.session() as session:
        return answer(show_channel(use_cases.set_disabled(session, principal(), str(path.channel_id), disabled)))


@api.post("/notifications/channels/<uuid:channel_id>/replay", responses={"200": ReplayedOut, **problems(404)})
@permission("manage")
def replay_channel(path: ChannelPath) -> Response:
    """Send a channel's dead letters again"""
    with resources().database.session() as session:
        return answer(ReplayedOut(deliveries=use_cases.replay_all(session, principal(), str(path.channel_id))))


@api.get("/notifications/subscriptions", responses={"200": SubscriptionList})
@permission("read")
def list_subscriptions() -> Response:
    """List subscriptions

    Your own, and all of the channels that you may configure.
    """
    with resources().database.read() as session:
        return answer(SubscriptionList(items=page_of(use_cases.subscriptions(session, principal()), show_subscription)))


@api.post("/notifications/subscriptions", responses={"201": SubscriptionOut, **problems(404)})
@permission("read")
def subscribe(body: SubscriptionIn) -> Response:
    """Subscribe

    A channel to events, which takes the permission `manage`, or yourself with `personal`.
    """
    with resources().database.session() as session:
        made = use_cases.subscribe(session, principal(), _wanted_subscription(body))
    return answer(show_subscription(made), 201, {"Location": f"{PREFIX}/notifications/subscriptions/{made.id}"})


@api.get("/notifications/subscriptions/<uuid:subscription_id>", responses={"200": SubscriptionOut, **problems(404)})
@permission("read")
def get_subscription(path: SubscriptionPath) -> Response:
    """Read a subscription"""
    with resources().database.read() as session:
        found = use_cases.visible_subscription(session, principal(), str(path.subscription_id))
        return answer(show_subscription(found))


@api.put("/notifications/subscriptions/<uuid:subscription_id>", responses={"200": SubscriptionOut, **problems(404)})
@permission("read")
def change_subscription(path: SubscriptionPath, body: SubscriptionIn) -> Response:
    """Replace a subscription

    Its channel and its owner stay.
    """
    with resources().database.session() as session:
        changed = use_cases.change_subscription(
            session, principal(), str(path.subscription_id), _wanted_subscription(body)
        )
    return answer(show_subscription(changed))


@api.delete("/notifications/subscriptions/<uuid:subscription_id>", responses={"204": None, **problems(404)})
@permission("read")
def unsubscribe(path: SubscriptionPath) -> Response:
    """End a subscription

    What waits for it is not sent.
    """
    with resources().database.session() as session:
        use_cases.unsubscribe(session, principal(), str(path.subscription_id))
    return Response(status=204)


def _wanted_subscription(body: SubscriptionIn) -> use_cases.WantedSubscription:
    values: dict[str, Any] = {name: getattr(body, name) for name in SubscriptionIn.model_fields if name != "channel"}
    return use_cases.WantedSubscription(channel_id=str(body.channel), **values)


@api.get("/notifications", responses={"200": NotificationList, **problems(404)})
@permission("manage")
def index(query: NotificationQuery) -> Response:
    """List deliveries

    Messages to channels, newest first. Dead letters have the state `dead`.
    """
    states: Sequence[str] = (query.state,) if query.state else ()
    with resources().database.read() as session:
        found = use_cases.deliveries(
            session,
            principal(),
            channel_id=str(query.channel or ""),
            states=states,
            cursor=query.cursor,
            limit=query.limit,
        )
    return answer(NotificationList(items=page_of(found.items, show_delivery), next_cursor=found.next_cursor))


@api.get("/notifications/<uuid:delivery_id>", responses={"200": NotificationOut, **problems(404)})
@permission("manage")
def get(path: NotificationPath) -> Response:
    """Read a delivery"""
    with resources().database.read() as session:
        return answer(show_delivery(use_cases.delivery(session, principal(), str(path.delivery_id))))


@api.post("/notifications/<uuid:delivery_id>/replay", responses={"200": NotificationOut, **problems(404, 409)})
@permission("manage")
def replay(path: NotificationPath) -> Response:
    """Send a dead letter again

    Under its id.
    """
    with resources().database.session() as session:
        return answer(show_delivery(use_cases.replay(session, principal(), str(path.delivery_id))))
