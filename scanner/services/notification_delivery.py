"""From events to receivers: routing the outbox, sending messages, looking for conditions that nobody writes.

Everything here runs in workers, in threads of its own, and after the commit of what it tells: a slow receiver holds up
nothing but its own channel. A message is sent at least once, always under the same id.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from zoneinfo import ZoneInfo

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.errors import ConflictError, NotFoundError, ScannerError
from scanner.model.notification import Event, EventKind, Level, Message, Occurrence
from scanner.model.untrusted import clean_text
from scanner.notify.base import DeliveryError, Receipt, Target, redacted
from scanner.policy import expressions
from scanner.services import receipts
from scanner.services.exemptions import event_of
from scanner.services.notifications import event_variable, quiet_until
from scanner.store import accounts, alerts, channels, exemptions, notifications, open_groups, outbox, scans, trust
from scanner.store.leases import try_lock
from scanner.store.session import Database, epoch, moment

log = logging.getLogger(__name__)

BATCH, SENT_AT_ONCE = 100, 100  # so few that the transaction of a batch is short
# What was accepted is sent again if the worker is killed before it is recorded. So the first message of a turn is
# recorded at once; in a burst, twice as many together each time, but as many as half a second takes at most.
_RECORD_SECONDS = 0.5
_TURN_SECONDS = 20.0  # then the other channels get their turn
LEASE_SECONDS = 180.0  # longer than the slowest delivery with its retries on one connection
# Seconds to the next attempt: sixteen hours in all, so that a receiver may be away for a night.
BACK_OFF = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0)
_CHANNEL_PAUSE = 1800.0  # at most: then a channel is tried again, whatever its messages wait for
_FAILING = 3  # failures in a row after which a channel is reported as failing
_QUEUE_STUCK = timedelta(minutes=15)  # a scan that waits longer is reported
# Before an exemption ends, and before a signature does.
_EXPIRING, _SIGNATURE_EXPIRING = timedelta(days=7), timedelta(days=14)
_DAILY_AT = 8  # o'clock, in the subscription's time zone
_ROUTE_LOCK, _WATCH_LOCK = 0x0D0C4A0D31, 0x0D0C4A0D32
# Tickets and alerts of these are closed when nothing of the group is left.
_CLOSED = {EventKind.IMAGE_DENIED: 20, EventKind.VULNERABILITY_NEW: 500}  # with how many are looked at in a round


# Routing


def route(database: Database) -> int:
    """Turn a batch of events into messages. Returns how many events; 0: there was none, or another worker is at it.

    Conditions are evaluated before the transaction: it holds the write lock of SQLite, which the gate needs too.
    """
    with database.read() as session:
        rows = outbox.unrouted_events(session, limit=BATCH)
        if not rows:
            return 0
        audience = _audience(session)
        now = epoch(session)
    planned = [plan for row in rows for plan in _plans(audience, row, now)]

    def write(session: Connection) -> int:
        # A lock that is not waited for. The worker that holds it does this work, and a second one would only wait to
        # find nothing.
        if not try_lock(session, _ROUTE_LOCK):
            return 0
        outbox.mark_routed(session, rows)
        notifications.collect(session, planned)
        # In the transaction of the message: an alert that is sent but not noted would never be closed.
        for kind in _CLOSED:
            alerts.note(session, kind, {_alert_key(row.event) for row in rows if _opens(row.event, kind)})
        return len(rows)

    try:
        return database.uncrossed(write)
    except ConflictError:
        return 0


@dataclass(frozen=True)
class _Subscriber:
    """A subscription with the projects whose events it may get; None: every project's, and the installation's."""

    own: channels.SubscriptionView
    projects: frozenset[str] | None

    def gets(self, event: Event) -> bool:
        if self.projects is not None and event.project not in self.projects:
            return False
        if self.own.kinds and event.kind.value not in self.own.kinds:
            return False
        if event.kind is EventKind.RECEIVER_FAILING and event.subject == self.own.channel_id:
            return False  # a channel cannot tell that it fails
        return not self.own.condition or _matches(self.own.condition, event)


def _matches(condition: str, event: Event) -> bool:
    """A condition that cannot be evaluated does not silence an event."""
    try:
        return expressions.event_matches(condition, event_variable(event))
    except expressions.ExpressionError as error:
        log.warning("a subscription's condition failed on %s: %s", event.kind, error)
        return True


def _audience(session: Connection) -> list[_Subscriber]:
    found = channels.subscriptions(session, active=True)
    people = {user.id: user for user in accounts.list_users(session)} if any(one.owner_id for one in found) else {}
    audience = []
    for one in found:
        reach: frozenset[str] | None = None
        if one.owner_id:
            owner = people.get(one.owner_id)
            if owner is None or owner.disabled:
                continue
            reach = owner.reach  # as it is now: who left a project gets nothing of it
        # The narrowest wins: a personal subscription on a project's channel never gets more than its owner, its
        # filter and the channel may each have.
        for limit in (one.project, one.channel_project):
            if limit:
                reach = frozenset({limit}) if reach is None else reach & {limit}
        audience.append(_Subscriber(one, reach))
    return audience


def _plans(audience: Sequence[_Subscriber], row: outbox.Row, now: float) -> Iterable[notifications.PlannedMessage]:
    for one in audience:
        if one.gets(row.event):
            group = notifications.DIGEST if one.own.digest else group_of(row.event)
            yield notifications.PlannedMessage(
                one.own.id, one.own.channel_id, one.own.recipient, group, _sent_at(one.own, now), row
            )


def group_of(event: Event) -> str:
    """The group of an event: by this key, tickets and alerts are found again."""
    return f"{event.kind}|{event.project}|{event.group or event.subject}"


def _sent_at(own: channels.SubscriptionView, now: float) -> float:
    """When a message that begins now is sent."""
    at = datetime.fromtimestamp(now, UTC)
    if own.digest == "hourly":
        at = at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    elif own.digest == "daily":
        local = at.astimezone(ZoneInfo(own.timezone))
        today = local.replace(hour=_DAILY_AT, minute=0, second=0, microsecond=0)
        at = (today if today > local else today + timedelta(days=1)).astimezone(UTC)
    else:
        at += timedelta(seconds=own.group_seconds)
    return quiet_until(at, own.quiet_from, own.quiet_to, own.timezone).timestamp()


def _opens(event: Event, kind: EventKind) -> bool:
    return event.kind is kind and not event.resolved


def _alert_key(event: Event) -> alerts.Key:
    return event.project, event.group or event.subject


# Sending

_Accepted = tuple[notifications.NotificationView, Receipt]
_Refused = tuple[notifications.NotificationView, DeliveryError]


def deliver(
    database: Database,
    settings: Settings,
    key: Secret,
    worker: str,
    stopped: Callable[[], bool] = lambda: False,
    sending: Callable[[Message], None] = lambda message: None,
) -> int | None:
    """Send what is due on one channel. Returns how many messages were tried; None: no channel has any.

    ``sending`` is called with each message before it is sent.
    """
    held = database.uncrossed(lambda session: channels.claim(session, worker, LEASE_SECONDS))
    if held is None:
        return None
    tried = 0
    # The channel is leased, so no other worker sends its messages. Order within a channel is kept, and a ticket is
    # opened before it is closed.
    batch = database.uncrossed(lambda session: _take(session, held))
    with database.read() as session:
        try:
            channel = channels.get(session, held.channel_id)
            target = _target(session, channel, settings, key)
        except (NotFoundError, DeliveryError) as error:
            target, failure = None, error
    accepted: list[_Accepted] = []
    together = 1
    began = recorded = time.monotonic()
    with target.shared_connections() if target else nullcontext():
        for view in batch:
            if stopped() or time.monotonic() - began > _TURN_SECONDS:
                break
            message = compose(view, settings.public_url)
            sending(message)
            outcome: Receipt | DeliveryError
            if target is None:
                # Each waiting message gets the reason on its own row, so that the page of deliveries explains why
                # nothing arrives.
                outcome = failure if isinstance(failure, DeliveryError) else DeliveryError(str(failure))
            else:
                outcome = _try_to_send(channel.format, message, target)
            tried += 1
            if isinstance(outcome, Receipt):
                accepted.append((view, outcome))
                if len(accepted) < together and time.monotonic() - recorded < _RECORD_SECONDS:
                    continue
            refused = (view, outcome) if isinstance(outcome, DeliveryError) else None
            # The fence. A worker that was paused longer than its lease must not overwrite what its successor recorded.
            if not database.transact(_recorder(held, accepted, refused)):
                return tried  # another worker has the channel, or the channel is gone
            accepted, together, recorded = [], together * 2, time.monotonic()
            if isinstance(outcome, DeliveryError) and outcome.retryable:
                break  # the receiver is away: the rest waits too
    left = [view.id for view in batch[tried:]]
    record = _recorder(held, accepted, None)

    def finish(session: Connection) -> None:
        if not accepted or record(session):
            _release(session, held, left, tried)

    database.transact(finish)
    return tried


def _take(session: Connection, held: channels.HeldChannel) -> tuple[notifications.NotificationView, ...]:
    return notifications.due(session, held, SENT_AT_ONCE)


def _target(session: Connection, channel: channels.ChannelView, settings: Settings, key: Secret) -> Target:
    try:
        return Target(settings, channel.settings, channels.secrets(session, channel.id, key))
    except NotFoundError:
        raise
    except ScannerError as error:
        raise DeliveryError(str(error), reason=error.reason, hint=error.hint) from None


def _try_to_send(format_: str, message: Message, target: Target) -> Receipt | DeliveryError:
    form = catalog.channels().get(format_)
    if form is None:
        return DeliveryError(f"this version has no channel format {format_}", reason="no_such_format")
    # Receivers echo requests in their errors, with the token in a URL or header. Nothing that is stored or logged may
    # contain it.
    secrets = target.secrets.values()
    try:
        receipt = form.deliver(message, target)
    except DeliveryError as error:
        more = {"reason": error.reason, "retry_after": error.retry_after, "retryable": error.retryable}
        return DeliveryError(redacted(str(error), secrets), answer=redacted(error.answer, secrets), **more)
    except Exception as error:  # noqa: BLE001
        # The boundary of a channel: a bug in one format must not stop the others. The text may hold a secret.
        log.error("the channel format %s failed: %s", format_, type(error).__name__)
        return DeliveryError(f"internal error ({type(error).__name__})", reason="internal_error")
    return Receipt(receipt.status, redacted(receipt.text, secrets))


def _recorder(
    held: channels.HeldChannel, accepted: Sequence[_Accepted], refused: _Refused | None
) -> Callable[[Connection], bool]:
    """What came of attempts, in one transaction under the fence: the last of them may have been refused.

    False: the channel is another worker's by now.
    """

    def record(session: Connection) -> bool:
        before = channels.failures(session, held)
        if before is None:
            return False
        if accepted and not _record_accepted(session, held, accepted, before):
            return False
        return refused is None or _record_refused(session, held, *refused, 0 if accepted else before)

    return record


def _record_accepted(
    session: Connection, held: channels.HeldChannel, accepted: Sequence[_Accepted], before: int
) -> bool:
    now = epoch(session)
    values = {"failures": 0, "message": "", "delivered_at": datetime.fromtimestamp(now, UTC), "paused_until": None}
    if not channels.write(session, held, **values, lease_until=now + LEASE_SECONDS):
        return False
    notifications.record_sent(session, ((view.id, receipt.status, receipt.text) for view, receipt in accepted))
    if before >= _FAILING:
        _tell_failing(session, accepted[0][0], before, "", resolved=True)
    return True


def _record_refused(
    session: Connection,
    held: channels.HeldChannel,
    view: notifications.NotificationView,
    error: DeliveryError,
    before: int,
) -> bool:
    now, failures = epoch(session), before + 1
    again = error.retryable and view.attempt < len(BACK_OFF)
    # The receiver's Retry-After counts, if it is longer than our own pause.
    pause = max(BACK_OFF[min(view.attempt, len(BACK_OFF) - 1)], error.retry_after or 0.0)
    pause *= random.uniform(0.8, 1.2)  # so that those who failed together do not come back together
    values: dict[str, object] = {
        "failures": failures,
        "message": str(error)[:1000],
        "lease_until": now + LEASE_SECONDS,
    }
    if error.retryable:
        values["paused_until"] = now + min(pause, max(_CHANNEL_PAUSE, error.retry_after or 0.0))
    if not channels.write(session, held, **values):
        return False
    next_at = now + pause if again else None
    notifications.record_failure(session, view.id, error.reason, str(error), error.answer, next_at=next_at)
    # Exactly at the threshold: an event for each further failure would flood the receivers.
    if failures == _FAILING:
        _tell_failing(session, view, failures, str(error), resolved=False)
    return True


def _tell_failing(
    session: Connection, view: notifications.NotificationView, failures: int, why: str, *, resolved: bool
) -> None:
    channel = channels.get(session, view.channel_id)
    what = "works again" if resolved else "fails"
    event = Event(
        EventKind.RECEIVER_FAILING,
        channel.id,
        f"The notification channel {channel.name} {what}",
        channel.project,
        item=why,
        level=Level.INFO if resolved else Level.ERROR,
        resolved=resolved,
        path=f"/notifications/channels/{channel.id}",
        data={"channel": channel.name, "format": channel.format, "failures": failures},
    )
    outbox.add(session, [event])


def _release(session: Connection, held: channels.HeldChannel, left: Sequence[int], tried: int) -> None:
    values: dict[str, object] = {"lease_until": None, "worker": ""}
    if tried == 0 and not left:
        # What is due waits for an earlier message about its subject: the other channels come first.
        values["paused_until"] = epoch(session) + 5.0
    if channels.write(session, held, **values):
        notifications.put_back(session, left)


def compose(view: notifications.NotificationView, public_url: str) -> Message:
    """The message that is sent: always the same for the same row."""
    base = public_url.rstrip("/")
    occurrences = tuple(
        Occurrence(one.id, one.event, one.at, f"{base}{one.event.path}" if base and one.event.path else "")
        for one in view.events
    )
    pages = {one.url for one in occurrences}
    return Message(
        view.uid,
        view.kind,
        view.group_key,
        view.title,
        view.level,
        view.resolved,
        occurrences,
        view.count,
        view.created_at,
        project=view.project,
        url=(pages.pop() if len(pages) == 1 else "") or base,
        recipient=view.recipient,
    )


# Conditions that time brings about, and groups of which nothing is left


def watch(database: Database, settings: Settings) -> int:
    """Look for what began and ended since the last look. Returns how many events were written."""

    def look(session: Connection) -> int:
        if not try_lock(session, _WATCH_LOCK):
            return 0
        now = moment(session)
        events = [
            *_condition_changes(session, EventKind.EXEMPTION_EXPIRING, _expiring_events(session, now)),
            *_expired_events(session, now),
            *_condition_changes(session, EventKind.SIGNATURE_EXPIRING, _signatures(session, now)),
            *_condition_changes(session, EventKind.QUEUE_STUCK, _stuck(session)),
            *_condition_changes(session, EventKind.RECEIPTS_UNSIGNED, _unsigned(session, settings)),
            *_condition_changes(session, EventKind.ADVISORIES_STALE, stale),
            *(_end(session, gone) for gone in left if _is_gone(session, gone)),
        ]
        return outbox.add(session, events)

    stale = _stale(settings)  # asks the engine: not in a transaction
    # On SQLite this keeps no writer waiting; the few that are gone are looked at again.
    with database.read() as session:
        left = [one for one in _some_open(session) if _is_gone(session, one)]
    return database.uncrossed(look)


def _condition_changes(session: Connection, kind: EventKind, now: Mapping[alerts.Key, Event]) -> list[Event]:
    """Return events for conditions that began, and for those that ended if their kind reports the end."""
    told = alerts.open_(session, kind)
    begun = [key for key in sorted(now) if key not in told]
    ended = sorted(told - now.keys())
    alerts.begin(session, kind, begun)
    alerts.end(session, kind, ended)
    events = [now[key] for key in begun]
    if kind in _ENDS:
        events += [
            Event(kind, subject, _ENDS[kind], project, level=Level.INFO, resolved=True) for project, subject in ended
        ]
    return events


_ENDS = {
    EventKind.QUEUE_STUCK: "Scans no longer wait for a worker",
    EventKind.ADVISORIES_STALE: "The advisory database is fresh again",
    EventKind.RECEIPTS_UNSIGNED: "Receipts are signed again",
}


def _expiring_events(session: Connection, now: datetime) -> dict[alerts.Key, Event]:
    soon = exemptions.expiring_between(session, now, now + _EXPIRING)
    return {
        (one.project, one.id): event_of(
            one,
            EventKind.EXEMPTION_EXPIRING,
            f"An exemption of {one.owner} expires on {one.expires_at:%Y-%m-%d}",
            Level.WARNING,
        )
        for one in soon
    }


def _expired_events(session: Connection, now: datetime) -> list[Event]:
    """Exemptions whose time is over since the last look."""
    over = exemptions.expiring_between(session, now - timedelta(days=2), now)
    told = alerts.open_(session, EventKind.EXEMPTION_LAPSED)
    new = [one for one in over if (one.project, one.id) not in told]
    alerts.begin(session, EventKind.EXEMPTION_LAPSED, [(one.project, one.id) for one in new])
    alerts.end(session, EventKind.EXEMPTION_LAPSED, told - {(one.project, one.id) for one in over})
    headline = "An exemption of {} expired"
    return [
        event_of(one, EventKind.EXEMPTION_LAPSED, headline.format(one.owner), Level.WARNING, why="its time is over")
        for one in new
    ]


def _signatures(session: Connection, now: datetime) -> dict[alerts.Key, Event]:
    _, found = trust.ending_signatures(session, None, now + _SIGNATURE_EXPIRING, limit=1000)
    return {
        (one.project, f"{one.repository}:{one.tag}"): Event(
            EventKind.SIGNATURE_EXPIRING,
            f"{one.repository}:{one.tag}",
            f"A signature expires on {one.expires_at:%Y-%m-%d}",
            one.project,
            item=f"{one.repository}:{one.tag}",
            path=f"/images/{one.digest}",
            data={"repository": one.repository, "tag": one.tag, "digest": one.digest},
        )
        for one in found
    }


def _stuck(session: Connection) -> dict[alerts.Key, Event]:
    oldest = scans.figures(session).oldest_queued_seconds
    if oldest < _QUEUE_STUCK.total_seconds():
        return {}
    headline = "Scans wait too long for a worker"
    event = Event(
        EventKind.QUEUE_STUCK,
        "queue",
        headline,
        item=f"the oldest for {int(oldest // 60)} minutes",
        level=Level.ERROR,
        path="/scans",
        data={"oldest_queued_seconds": int(oldest)},
    )
    return {("", "queue"): event}


def _unsigned(session: Connection, settings: Settings) -> dict[alerts.Key, Event]:
    trouble = receipts.signing_trouble(session, settings)
    if trouble is None:
        return {}
    event = Event(
        EventKind.RECEIPTS_UNSIGNED,
        "receipts",
        "Receipts cannot be signed",
        item=clean_text(trouble.message, 300),
        level=Level.ERROR,
        path="/enforcement",
        data={"reason": trouble.reason, "since": trouble.since.isoformat()},
    )
    return {("", "receipts"): event}


def _stale(settings: Settings) -> dict[alerts.Key, Event]:
    """As `advisories_max_age_hours` says. A worker whose engine has no advisories is one that cannot decide either."""
    oldest = datetime.now(UTC) - timedelta(hours=settings.advisories_max_age_hours)
    found = {}
    for engine in catalog.engines_of(settings.engine):
        try:
            updated_at = engine.advisories(settings).updated_at
            why = "" if updated_at is not None and updated_at >= oldest else f"of {engine.id}: too old"
        except ScannerError as error:
            why = f"of {engine.id}: {error}"
        if why:
            found["", engine.id] = Event(
                EventKind.ADVISORIES_STALE,
                engine.id,
                "The advisory database is too old",
                item=why,
                level=Level.ERROR,
                path="/advisories",
                data={"engine": engine.id},
            )
    return found


@dataclass(frozen=True)
class _Open:
    """A group of events that was reported as open and not yet as closed."""

    kind: EventKind
    project: str
    group: str


def _some_open(session: Connection) -> list[_Open]:
    """As many open groups as one look can afford, other ones each time."""
    found = []
    for kind, most in _CLOSED.items():
        keys = sorted(alerts.open_(session, kind))
        found += [_Open(kind, *key) for key in random.sample(keys, min(most, len(keys)))]
    return found


def _is_gone(session: Connection, one: _Open) -> bool:
    if one.kind is EventKind.VULNERABILITY_NEW:
        return not open_groups.has_vulnerability(session, one.project, one.group)
    policy, _, rule = one.group.partition(" ")
    return not open_groups.is_denied(session, one.project, policy, rule)


def _end(session: Connection, one: _Open) -> Event:
    """Nothing of a group is left: its ticket or alert is closed."""
    alerts.end(session, one.kind, [(one.project, one.group)])
    path, level = "/images", Level.INFO
    if one.kind is EventKind.VULNERABILITY_NEW:
        headline = f"{one.group} is in no current or running image any more"
        path = f"/vulnerabilities/{quote(one.group, safe='')}"
    else:
        policy, _, rule = one.group.partition(" ")
        headline = f"No current image is denied by rule {rule} of policy {policy} any more"
    return Event(one.kind, one.group, headline, one.project, group=one.group, level=level, resolved=True, path=path)
