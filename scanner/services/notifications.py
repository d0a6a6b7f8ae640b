"""Notifications: configuring channels and subscriptions, testing a channel, replaying dead letters.

Secrets go in and never come out again. An address is checked before it is stored, and again at each delivery.
Administrators configure channels; people subscribe themselves to channels that allow their addresses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.errors import ConflictError, NotFoundError, RefusedError, RemoteError, UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.notification import SUBSCRIBABLE, Event, EventKind, Level, Message, Occurrence
from scanner.model.pem import read_ca
from scanner.notify.base import CA, URL, ChannelFormat, DeliveryError, Field, Target, redacted
from scanner.outbound import resolve, split_address
from scanner.policy import expressions
from scanner.services import _fields as fields
from scanner.services import projects
from scanner.store import audit, channels, notifications
from scanner.store.page import Page
from scanner.store.session import Database, moment

NAME_LENGTH, CONDITION_LENGTH, RECIPIENT_LENGTH = 200, 1000, 320
GROUP_SECONDS, GROUP_SECONDS_MOST = 60, 24 * 3600
DIGESTS = ("", "hourly", "daily")
CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
REPLAYED = 1000  # messages that one request sends again
# What a condition may name for every kind, so that it does not fail on kinds without it.
VARIABLES: Mapping[str, object] = {
    "repository": "",
    "tag": "",
    "digest": "",
    "environment": "",
    "verdict": "",
    "undecided": False,
    "policy": "",
    "rule": "",
    "vulnerability": "",
    "severity": "",
    "exploited": False,
    "running": False,
    "fixable": False,
    "package": "",
    "host": "",
    "rebuild_count": 0,
}


def event_variable(event: Event) -> dict[str, object]:
    """The variable ``event`` of a condition."""
    return {
        **VARIABLES,
        **event.data,
        "kind": event.kind.value,
        "subject": event.subject,
        "project": event.project,
        "level": event.level.value,
        "resolved": event.resolved,
        "headline": event.headline,
        "item": event.item,
    }


def format_of(name: str) -> ChannelFormat:
    """Raises UsageError for an unknown format."""
    found = catalog.channels().get(name)
    if found is None:
        hint = "one of " + ", ".join(catalog.channels())
        raise fields.invalid("format", f"there is no channel format {name[:64]!r}", hint)
    return found


# Channels


def create(
    database: Database,
    settings: Settings,
    key: Secret,
    actor: Actor,
    *,
    name: str,
    format_: str,
    values: Mapping[str, str],
    project: str = "",
) -> channels.ChannelView:
    """Configure a channel. ``project`` empty: it may get events of every project.

    Takes the database, because addresses are resolved before the transaction. Raises UsageError naming the field,
    RefusedError for an address that is not allowed, NotFoundError for a project that the actor does not see.
    """
    fields.text("name", name, NAME_LENGTH, shortest=1)
    form = format_of(format_)
    plain, secrets = _check_form(form, values, {})
    _check_addresses(form, {**plain, **_revealed_secrets(secrets)}, settings)
    with database.session() as session:
        if project:
            projects.visible_name(session, actor, project)
        else:
            actor.require_every_project()
        identifier = channels.add(
            session,
            key,
            name=name,
            format_=format_,
            project=project,
            settings=plain,
            secrets=secrets,
            created_by=actor.name,
        )
        audit.record(session, actor, Action.CHANNEL_CREATE, identifier, detail={"name": name, "format": format_})
        return channels.get(session, identifier)


def change(
    database: Database,
    settings: Settings,
    key: Secret,
    actor: Actor,
    identifier: str,
    *,
    name: str,
    values: Mapping[str, str],
) -> channels.ChannelView:
    """Change a channel. A secret that is not given stays. Raises as `create`."""
    fields.text("name", name, NAME_LENGTH, shortest=1)
    with database.read() as session:
        found = visible(session, actor, identifier)
        stored = channels.secrets(session, identifier, key)
    form = format_of(found.format)
    plain, secrets = _check_form(form, values, stored)
    everything = {**plain, **_revealed_secrets(secrets)}
    if form.hosts(everything) != form.hosts({**found.settings, **_revealed_secrets(stored)}):
        # A user who changes the address to their own server must not receive a secret that another user stored.
        for one in form.fields:
            if one.secret and one.name in stored and not values.get(one.name):
                hint = "the address has changed, and the stored secret is not sent to another one"
                raise fields.invalid(one.name, f"give {one.label} again", hint)
    _check_addresses(form, everything, settings)
    with database.session() as session:
        channels.change(session, key, identifier, name=name, settings=plain, secrets=secrets)
        # Names only. The audit log says that a secret was changed and never what it was or is.
        renewed = sorted(name for name in secrets if secrets[name].reveal() != _plain_text(stored.get(name)))
        members = sorted({*(n for n in plain if plain[n] != found.settings.get(n)), *renewed})
        audit.record(session, actor, Action.CHANNEL_CHANGE, identifier, detail={"name": name, "members": members})
        return channels.get(session, identifier)


def set_disabled(session: Connection, actor: Actor, identifier: str, disabled: bool) -> channels.ChannelView:
    """Stop sending, or begin again with what waits. Raises NotFoundError."""
    found = visible(session, actor, identifier)
    channels.set_disabled(session, identifier, disabled)
    action = Action.CHANNEL_DISABLE if disabled else Action.CHANNEL_ENABLE
    audit.record(session, actor, action, identifier, detail={"name": found.name})
    return channels.get(session, identifier)


def remove(session: Connection, actor: Actor, identifier: str) -> None:
    """Delete a channel with its subscriptions and the record of its deliveries. Raises NotFoundError."""
    found = visible(session, actor, identifier)
    channels.remove(session, identifier)
    audit.record(session, actor, Action.CHANNEL_REMOVE, identifier, detail={"name": found.name})


def visible(session: Connection, actor: Actor, identifier: str) -> channels.ChannelView:
    """A channel that the actor may configure. Raises NotFoundError."""
    found = channels.get(session, identifier)
    # The same answer as for one that does not exist: names of other projects' channels are not told.
    if not _configures(actor, found):
        raise NotFoundError("there is no such channel")
    return found


def configurable_channels(session: Connection, actor: Actor) -> list[channels.ChannelView]:
    """The channels that the actor may configure, by name."""
    return [one for one in channels.list_channels(session) if _configures(actor, one)]


def _configures(actor: Actor, found: channels.ChannelView) -> bool:
    """Channels of every project belong to those who see every project."""
    return actor.projects is None or (found.project != "" and found.project in actor.projects)


@dataclass(frozen=True)
class ChannelTest:
    """What came of a test. ``answer``: what the receiver answered, without secrets."""

    delivered: bool
    status: str  # of the receiver, such as an HTTP status
    message: str
    answer: str
    hint: str = ""  # what to do next; empty: nothing


def send_test(
    database: Database, settings: Settings, key: Secret, actor: Actor, identifier: str, recipient: str = ""
) -> ChannelTest:
    """Send a test message now, and say what the receiver answered. Raises NotFoundError, UsageError."""
    with database.read() as session:
        found = visible(session, actor, identifier)
        secrets = channels.secrets(session, identifier, key)
        now = moment(session)
    form = format_of(found.format)
    if recipient:
        form.check_recipient(recipient, found.settings)
    tested = _deliver_test(form, Target(settings, found.settings, secrets), found.name, recipient, now)
    with database.session() as session:
        if tested.delivered:
            # What failed while the address was wrong is sent at once, not at its next time.
            channels.retry_waiting(session, identifier)
        detail = {"name": found.name, "delivered": tested.delivered, "message": tested.message}
        audit.record(session, actor, Action.CHANNEL_TEST, identifier, detail=detail)
    return tested


def _deliver_test(form: ChannelFormat, target: Target, name: str, recipient: str, now: datetime) -> ChannelTest:
    # Another id for each test, so that a receiver that drops repeated ids shows every one.
    identifier = f"test-{int(now.timestamp())}"
    event = Event(
        EventKind.TEST, "test", f"A test of the channel {name}", item="Dockwarden can send here", level=Level.INFO
    )
    url = target.settings.public_url
    message = Message(
        identifier,
        EventKind.TEST.value,
        "test",
        event.headline,
        event.level,
        False,
        (Occurrence(identifier, event, now, url),),
        1,
        now,
        url=url,
        recipient=recipient,
    )
    secrets = target.secrets.values()
    try:
        receipt = form.deliver(message, target)
    except DeliveryError as error:
        return ChannelTest(False, "", redacted(str(error), secrets), redacted(error.answer, secrets), error.hint)
    return ChannelTest(True, receipt.status, "delivered", redacted(receipt.text, secrets))


# Subscriptions


@dataclass(frozen=True)
class WantedSubscription:
    """What is subscribed to. See `store.channels.SubscriptionView`. ``personal``: for the actor's own address."""

    channel_id: str
    name: str = ""
    project: str = ""
    personal: bool = False
    recipient: str = ""
    kinds: Sequence[str] = ()
    condition: str = ""
    digest: str = ""
    group_seconds: int = GROUP_SECONDS
    quiet_from: str = ""
    quiet_to: str = ""
    timezone: str = "UTC"
    disabled: bool = False


def subscribe(session: Connection, actor: Actor, wanted: WantedSubscription) -> channels.SubscriptionView:
    """Subscribe a channel to events, or, with ``personal``, oneself.

    Raises UsageError naming the field, NotFoundError, RefusedError.
    """
    _check(wanted)
    channel = _channel_of(session, actor, wanted)
    _check_rights(session, actor, wanted, channel)
    person = actor.person
    values = {
        **_values(wanted),
        "owner_id": actor.user_id if wanted.personal else "",
        "owner": person.name if wanted.personal else "",
        "created_by": actor.name[:200],
    }
    identifier = channels.subscribe(session, channel.id, values)
    detail = {"channel": channel.name, "kinds": list(wanted.kinds), "personal": wanted.personal}
    audit.record(session, actor, Action.SUBSCRIPTION_CREATE, identifier, detail=detail)
    return channels.subscription(session, identifier)


def change_subscription(
    session: Connection, actor: Actor, identifier: str, wanted: WantedSubscription
) -> channels.SubscriptionView:
    """Replace a subscription. Its channel and owner stay. Raises as `subscribe`."""
    found = visible_subscription(session, actor, identifier)
    if found.channel_id != wanted.channel_id or bool(found.owner_id) != wanted.personal:
        # Moving one would take along messages that wait for the former receiver.
        raise fields.invalid("channel", "a subscription keeps its channel and its owner", "make another one")
    _check(wanted)
    _check_rights(session, actor, wanted, _channel_of(session, actor, wanted))
    channels.change_subscription(session, identifier, _values(wanted))
    audit.record(session, actor, Action.SUBSCRIPTION_CHANGE, identifier, detail={"channel": found.channel})
    return channels.subscription(session, identifier)


def unsubscribe(session: Connection, actor: Actor, identifier: str) -> None:
    """End a subscription. What waits for it is not sent. Raises NotFoundError."""
    found = visible_subscription(session, actor, identifier)
    channels.unsubscribe(session, identifier)
    audit.record(session, actor, Action.SUBSCRIPTION_REMOVE, identifier, detail={"channel": found.channel})


def visible_subscription(session: Connection, actor: Actor, identifier: str) -> channels.SubscriptionView:
    """One's own, or a shared one of a channel that the actor may configure. Raises NotFoundError."""
    found = channels.subscription(session, identifier)
    if found not in subscriptions(session, actor):
        raise NotFoundError("there is no such subscription")
    return found


def subscriptions(session: Connection, actor: Actor) -> list[channels.SubscriptionView]:
    """The actor's own, and, for administrators of a channel, everybody's on it."""
    mine = {one.id for one in configurable_channels(session, actor)} if actor.may("manage") else set()
    return [
        one
        for one in channels.subscriptions(session)
        if one.channel_id in mine or (one.owner_id != "" and one.owner_id == actor.user_id)
    ]


def open_to_people(session: Connection, actor: Actor) -> list[channels.ChannelView]:
    """The channels to which the actor may subscribe with an own address."""
    return [
        one
        for one in channels.list_channels(session)
        if not one.disabled
        and (one.project == "" or actor.sees(one.project))
        and one.format in catalog.channels()
        and catalog.channels()[one.format].per_person
        # A channel without a list of domains would let a user send Dockwarden's messages to any address in the world.
        and one.settings.get("domains")
    ]


def _check(wanted: WantedSubscription) -> None:
    fields.text("name", wanted.name, NAME_LENGTH)
    known = {kind.value for kind in SUBSCRIBABLE}
    for kind in fields.at_most("kinds", wanted.kinds, len(known)):
        if kind not in known:
            hint = "one of " + ", ".join(sorted(known))
            raise fields.invalid("kinds", f"there is no kind of event {kind[:64]!r}", hint)
    fields.text("condition", wanted.condition, CONDITION_LENGTH, lines=True)
    if wanted.condition.strip():
        _check_condition(wanted.condition)
    if wanted.digest not in DIGESTS:
        raise fields.invalid("digest", f"there is no digest {wanted.digest[:20]!r}", "hourly, daily, or empty")
    if not 0 <= wanted.group_seconds <= GROUP_SECONDS_MOST:
        raise fields.invalid("group_seconds", f"wait 0 to {GROUP_SECONDS_MOST} seconds")
    if bool(wanted.quiet_from) != bool(wanted.quiet_to):
        raise fields.invalid("quiet_to", "quiet hours have a beginning and an end", "22:00 and 07:00")
    for name in ("quiet_from", "quiet_to"):
        if value := getattr(wanted, name):
            fields.check_pattern(name, value, CLOCK, 5, "write a time as 22:00")
    if wanted.timezone not in _timezones():
        raise fields.invalid("timezone", f"there is no time zone {wanted.timezone[:64]!r}", "such as Europe/Berlin")


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones()) | {"UTC"}


def _check_condition(condition: str) -> None:
    problem = expressions.problem(condition, events=True)
    if not problem:
        sample = Event(EventKind.VULNERABILITY_NEW, "CVE-2026-0001", "CVE-2026-0001 (critical)")
        try:
            # A type error shows only when it is evaluated. The author should see it now, not the log at each event.
            expressions.event_matches(condition, event_variable(sample))
        except expressions.ExpressionError as error:
            problem = str(error)
    if problem:
        raise fields.invalid("condition", f"the condition is refused: {problem}", "see docs/notifications.md")


def _channel_of(session: Connection, actor: Actor, wanted: WantedSubscription) -> channels.ChannelView:
    # Before the channel is looked up: one that the actor does not see must look like one that does not exist.
    if wanted.personal and not actor.user_id:
        raise RefusedError("this takes a person", reason="needs_person", hint="sign in as a user")
    try:
        return channels.get(session, wanted.channel_id)
    except NotFoundError as error:
        raise NotFoundError(str(error), field="channel") from error


def _check_rights(session: Connection, actor: Actor, wanted: WantedSubscription, channel: channels.ChannelView) -> None:
    if wanted.personal:
        if channel.id not in {one.id for one in open_to_people(session, actor)}:
            raise NotFoundError("there is no such channel", field="channel")
        fields.text("recipient", wanted.recipient, RECIPIENT_LENGTH, shortest=1)
        format_of(channel.format).check_recipient(wanted.recipient, channel.settings)
    else:
        if not _configures(actor, channel):
            raise NotFoundError("there is no such channel", field="channel")
        if not actor.may("manage"):
            raise RefusedError("shared subscriptions take the permission manage", reason="not_allowed")
        if wanted.recipient:
            raise fields.invalid("recipient", "a shared subscription has no address of its own", "leave it empty")
    if wanted.project:
        projects.visible_name(session, actor, wanted.project)
        if channel.project not in ("", wanted.project):
            raise fields.invalid("project", f"the channel gets events of the project {channel.project} only")


def _values(wanted: WantedSubscription) -> dict[str, object]:
    names = (
        "name",
        "project",
        "recipient",
        "digest",
        "group_seconds",
        "quiet_from",
        "quiet_to",
        "timezone",
        "disabled",
    )
    return {
        **{name: getattr(wanted, name) for name in names},
        "kinds": list(dict.fromkeys(wanted.kinds)),
        "condition": wanted.condition.strip(),
    }


# Deliveries


def deliveries(
    session: Connection,
    actor: Actor,
    *,
    channel_id: str = "",
    states: Sequence[str] = (),
    cursor: str | None = None,
    limit: int = 50,
) -> Page[notifications.NotificationView]:
    """Messages of the channels that the actor may configure, newest first."""
    mine = {one.id for one in configurable_channels(session, actor)}
    if channel_id:
        mine &= {channel_id}
    everything = actor.projects is None and not channel_id
    return notifications.list_notifications(
        session, None if everything else mine, states=states, cursor=cursor, limit=limit
    )


def delivery(session: Connection, actor: Actor, uid: str) -> notifications.NotificationView:
    """One message. Raises NotFoundError."""
    found = notifications.get(session, uid)
    if not _configures(actor, channels.get(session, found.channel_id)):
        raise NotFoundError("there is no such delivery")
    return found


def replay(session: Connection, actor: Actor, uid: str) -> notifications.NotificationView:
    """Send a dead letter again, under its id. Raises NotFoundError, ConflictError for one that is not dead."""
    found = delivery(session, actor, uid)
    if notifications.replay(session, [uid]) == 0:
        raise ConflictError("only a dead letter is sent again", reason="not_dead")
    audit.record(session, actor, Action.NOTIFICATION_REPLAY, uid, detail={"channel": found.channel})
    return notifications.get(session, uid)


def replay_all(session: Connection, actor: Actor, channel_id: str) -> int:
    """Send a channel's dead letters again, at most `REPLAYED`. Returns how many. Raises NotFoundError."""
    found = visible(session, actor, channel_id)
    count = notifications.replay(session, notifications.dead(session, channel_id, REPLAYED))
    detail = {"channel": found.name, "deliveries": count}
    audit.record(session, actor, Action.NOTIFICATION_REPLAY, channel_id, detail=detail)
    return count


# What a channel's fields may hold


def _check_form(
    form: ChannelFormat, given: Mapping[str, str], stored: Mapping[str, Secret]
) -> tuple[dict[str, str], dict[str, Secret]]:
    """The settings and the secrets of a channel. Raises UsageError naming the field."""
    known = {one.name: one for one in form.fields}
    if unknown := sorted(set(given) - set(known)):
        raise fields.invalid("settings", f"{form.title} has no field {unknown[0][:64]!r}", "one of " + ", ".join(known))
    plain: dict[str, str] = {}
    secrets: dict[str, Secret] = {}
    for one in form.fields:
        value = _value(one, given.get(one.name, ""))
        if one.secret:
            kept = Secret(value) if value else stored.get(one.name)
            if kept:
                secrets[one.name] = kept
        elif value:
            plain[one.name] = value
        if one.required and not (plain.get(one.name) or secrets.get(one.name)):
            raise fields.invalid(one.name, f"{one.label} is missing")
    form.check({**plain, **_revealed_secrets(secrets)})
    return plain, secrets


def _value(one: Field, given: str) -> str:
    """One value. The error never repeats a secret."""
    value = given.strip().replace("\r\n", "\n")
    if len(value) > one.longest or any(c < " " and not (one.lines and c in "\n\t") for c in value):
        raise fields.invalid(one.name, f"{one.label}: at most {one.longest} characters, without control characters")
    if one.name == CA.name and value:
        try:
            return read_ca(value, one.name)
        except UsageError as error:
            raise fields.invalid(one.name, str(error), error.hint) from None
    if value and one.choices and value not in one.choices:
        raise fields.invalid(one.name, f"{one.label} cannot be {value[:64]!r}", "one of " + ", ".join(one.choices))
    if value and one.pattern and not re.fullmatch(one.pattern, value):
        hint = f"such as {one.example}" if one.example else one.hint
        raise fields.invalid(one.name, f"{one.label} is not valid", hint)
    if value and one.pattern == URL and split_address(value) is None:
        raise fields.invalid(one.name, f"{one.label} is not an address", "https://host/path")
    return value


def _check_addresses(form: ChannelFormat, values: Mapping[str, str], settings: Settings) -> None:
    """Resolve what the values name. Raises RefusedError for an address that is not allowed, UsageError for none."""
    for host, port in form.hosts(values):
        try:
            resolve(host, port, settings)
        except RemoteError as error:
            raise fields.invalid("settings", str(error), error.hint) from None


def _revealed_secrets(secrets: Mapping[str, Secret]) -> dict[str, str]:
    return {name: value.reveal() for name, value in secrets.items()}


def _plain_text(secret: Secret | None) -> str:
    return secret.reveal() if secret else ""


def quiet_until(now: datetime, quiet_from: str, quiet_to: str, timezone: str) -> datetime:
    """The end of the quiet hours, or ``now`` outside of them."""
    if not quiet_from:
        return now
    local = now.astimezone(ZoneInfo(timezone))
    begin, end = (_minutes(text) for text in (quiet_from, quiet_to))
    minute = local.hour * 60 + local.minute
    quiet = begin <= minute < end if begin < end else minute >= begin or minute < end
    if begin == end or not quiet:
        return now
    ends = local.replace(hour=end // 60, minute=end % 60, second=0, microsecond=0, fold=0)
    if ends <= local:
        # A day on the clock of the wall: 23 or 25 hours where the clock changes.
        ends = datetime.combine(local.date().fromordinal(local.toordinal() + 1), ends.timetz())
    return ends.astimezone(UTC)


def _minutes(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)
