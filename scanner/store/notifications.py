"""Messages to channels: collected from events, sent in order, kept with what the receiver answered.

``collecting`` takes more events of its group. From the first attempt on a message never changes: its id may be known
to the receiver. Messages of one subscription about one subject are sent in their order.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from scanner.errors import NotFoundError
from scanner.model.notification import Level, Occurrence, title_of
from scanner.model.plurals import number_of
from scanner.store.channels import HeldChannel
from scanner.store.outbox import Row, from_json, to_json
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import notification, notification_channel, notification_subject
from scanner.store.session import epoch, insert_new, moment

DIGEST = "digest"  # the group of everything that a digest collects
KEPT = 100  # events that are kept with a message; the rest is counted
_OPEN = ("collecting", "waiting", "sending")
_LAST = 1 << 62  # in place of the numbers of messages that are not inserted yet: they come after all others
_c = notification.c


@dataclass(frozen=True)
class PlannedMessage:
    """An event on its way to one subscription. ``next_at``: when the message is sent, seconds since 1970."""

    subscription_id: str
    channel_id: str
    recipient: str  # empty: the channel's own address
    group: str  # events with the same key share a message
    next_at: float
    row: Row


@dataclass(frozen=True)
class NotificationView:
    """A message. ``uid`` is the id that the receiver sees. ``answer``: what it answered, without secrets."""

    id: int
    uid: str
    channel_id: str
    channel: str
    subscription_id: str
    project: str
    kind: str
    group_key: str  # events with the same key share a message while it is being collected
    resolved: bool
    title: str
    level: Level
    recipient: str  # empty: the channel's own address
    events: tuple[Occurrence, ...]
    count: int  # of all events; ``events`` may be fewer
    state: str
    attempt: int
    next_at: float  # seconds since 1970
    created_at: datetime
    ended_at: datetime | None  # None: not sent yet, and not given up
    status: str  # of the receiver, such as an HTTP status
    reason: str
    message: str
    answer: str


def collect(session: Connection, planned: Sequence[PlannedMessage]) -> None:
    """Add events to the messages of their groups that are still collecting, and begin messages for the others."""
    by_subscription: dict[str, list[PlannedMessage]] = {}
    for one in planned:
        by_subscription.setdefault(one.subscription_id, []).append(one)
    for identifier in sorted(by_subscription):
        _collect(session, identifier, by_subscription[identifier])


def _collect(session: Connection, subscription_id: str, planned: list[PlannedMessage]) -> None:
    groups = {one.group for one in planned}
    subjects = {one.row.event.subject for one in planned}
    collecting = _open_drafts(session, subscription_id, groups)
    latest = _latest(session, subscription_id, subjects)
    touched: dict[int, _Draft] = {}
    begun: list[_Draft] = []
    now = moment(session)
    for one in planned:
        draft = collecting.get(one.group)
        subject, resolved = one.row.event.subject, one.row.event.resolved
        if draft is not None and not (draft.takes(resolved) and latest.get(subject, 0) <= draft.number):
            # A later message about this subject exists already, or this one says the opposite: a new one comes last.
            if draft.begins is None:
                session.execute(notification.update().where(_c.id == draft.number).values(state="waiting"))
            else:
                draft.begins["state"] = "waiting"
            draft = None
        if draft is None:
            begins = _beginning(one, now)
            draft = collecting[one.group] = _Draft({**begins, "id": _LAST + len(begun)}, [], begins)
            begun.append(draft)
        draft.add(one)
        latest[subject] = draft.number
        touched[draft.number] = draft
    # One statement for all: a burst has a message for each event, and holds SQLite's write lock meanwhile.
    if begun:
        # Both databases number the rows of one INSERT in their order, which is the order in which they are sent.
        inserted = notification.insert().returning(_c.uid, _c.id)
        rows = [{**(new.begins or {}), **new.values()} for new in begun]
        numbers = {row.uid: row.id for row in session.execute(inserted, rows)}
        for new in begun:
            assert new.begins is not None
            new.number = numbers[new.begins["uid"]]
    for is_full in (True, False):
        known = (draft for draft in touched.values() if draft.begins is None)
        changed = [{"number": draft.number, **draft.values()} for draft in known if draft.full is is_full]
        if changed:
            session.execute(notification.update().where(_c.id == sa.bindparam("number")), changed)
    about = [
        {"notification_id": draft.number, "subject": subject, "subscription_id": subscription_id}
        for draft in touched.values()
        for subject in sorted(draft.subjects)
    ]
    insert_new(session, notification_subject, about)


class _Draft:
    """A message that takes events.

    ``events`` None: it has `KEPT` already, and they are neither read nor written again: a burst would rewrite them
    with every batch, under SQLite's write lock. ``begins``: the row of a message that is not inserted yet.
    """

    def __init__(
        self, row: Mapping[str, Any], events: list[dict[str, Any]] | None, begins: dict[str, Any] | None = None
    ) -> None:
        self.begins, self.number = begins, int(row["id"])
        self.count, self.resolved = int(row["count"]), bool(row["resolved"])
        self._events, self.full = events or [], events is None
        self._digest = row["group_key"] == DIGEST
        self._title, self._level = str(row["title"]), Level(row["level"])
        self._kind, self._project = str(row["kind"]), str(row["project"])
        heads = {(one["headline"], one["resolved"]) for one in self._events}
        self._head = heads.pop() if len(heads) == 1 else None  # of all its events; None: they differ, or there is none
        self.subjects: set[str] = set()

    def takes(self, resolved: bool) -> bool:
        return self._digest or self.resolved == resolved

    def add(self, one: PlannedMessage) -> None:
        event = one.row.event
        head = (event.headline, event.resolved)
        if self.count == 0 or (self.full and title_of((event,), self.count) == self._title):
            self._head = head
        elif self._head != head:
            self._head = None
        self._level = max(self._level, event.level, key=lambda level: level.rank)
        self._kind = event.kind.value if self._kind in ("", event.kind.value) else DIGEST
        self._project = event.project if self.count == 0 or self._project == event.project else ""
        self.count += 1
        self._title = title_of((event,), self.count) if self._head else number_of(self.count, "event")
        self.subjects.add(event.subject)
        if not self.full and len(self._events) < KEPT:
            self._events.append(_event_json(one.row))

    def values(self) -> dict[str, Any]:
        """What is written."""
        events = {} if self.full else {"events": self._events}
        named = {"title": self._title[:400], "level": self._level.value, "kind": self._kind, "project": self._project}
        return {"count": self.count, **named, **events}


def _beginning(one: PlannedMessage, now: datetime) -> dict[str, Any]:
    """Return the row of a new message, without events."""
    event = one.row.event
    return {
        "uid": str(uuid.uuid4()),
        "channel_id": one.channel_id,
        "subscription_id": one.subscription_id,
        "project": event.project,
        "kind": event.kind.value,
        "group_key": one.group,
        "resolved": event.resolved,
        "title": "",
        "level": event.level.value,
        "recipient": one.recipient,
        "events": [],
        "count": 0,
        "state": "collecting",
        "next_at": one.next_at,
        "created_at": now,
    }


def _open_drafts(session: Connection, subscription_id: str, groups: Collection[str]) -> dict[str, _Draft]:
    mine = (_c.subscription_id == subscription_id, _c.state == "collecting", _c.group_key.in_(list(groups)))
    names = ("id", "group_key", "count", "resolved", "title", "level", "kind", "project")
    query = sa.select(*(_c[name] for name in names)).where(*mine)
    if session.dialect.name != "sqlite":
        query = query.with_for_update()  # a worker that claims it now waits, and then sends all of it
    rows = session.execute(query).mappings().all()
    unfilled = [row["id"] for row in rows if row["count"] < KEPT]
    kept = {row.id: row.events for row in session.execute(sa.select(_c.id, _c.events).where(_c.id.in_(unfilled)))}
    return {row["group_key"]: _Draft(dict(row), kept.get(row["id"])) for row in rows}


def _latest(session: Connection, subscription_id: str, subjects: Collection[str]) -> dict[str, int]:
    """Of each subject, the last message that has not ended."""
    found = notification_subject.c
    mine = (found.subscription_id == subscription_id, found.subject.in_(list(subjects)))
    query = sa.select(found.subject, sa.func.max(found.notification_id).label("last")).where(*mine)
    return {row.subject: row.last for row in session.execute(query.group_by(found.subject))}


def due(session: Connection, held: HeldChannel, limit: int) -> tuple[NotificationView, ...]:
    """Take the messages of a channel that may be sent now, the first of each subject, in their order."""
    now = epoch(session)
    own, other = notification_subject.alias(), notification_subject.alias()
    earlier = (
        sa.select(own.c.subject)
        .join(other, (other.c.subscription_id == own.c.subscription_id) & (other.c.subject == own.c.subject))
        .where(own.c.notification_id == _c.id, other.c.notification_id < _c.id)
        .correlate(notification)
    )
    ready = sa.and_(
        _c.channel_id == held.channel_id,
        # A collecting message is taken as well once it is due: from then on its events cannot change.
        _c.state.in_(("collecting", "waiting")),
        _c.next_at <= now,
        ~sa.exists(earlier),
    )
    query = sa.select(_c.id).where(ready).order_by(_c.id).limit(limit)
    if session.dialect.name != "sqlite":
        query = query.with_for_update()
    numbers = list(session.execute(query).scalars())
    if numbers:
        session.execute(notification.update().where(_c.id.in_(numbers)).values(state="sending"))
    return _views(session, _c.id.in_(numbers), descending=False) if numbers else ()


def put_back(session: Connection, numbers: Iterable[int]) -> None:
    """Messages that were taken and not tried."""
    session.execute(
        notification.update().where(_c.id.in_(list(numbers)), _c.state == "sending").values(state="waiting")
    )


def record_sent(session: Connection, accepted: Iterable[tuple[int, str, str]]) -> None:
    """The receiver accepted messages: of each the number, the status and the answer."""
    each = {"state": "sent", "reason": "", "message": ""}
    _end(session, {n: {**each, "status": status[:16], "answer": answer[:1000]} for n, status, answer in accepted})


def record_failure(
    session: Connection, number: int, reason: str, message: str, answer: str, *, next_at: float | None
) -> None:
    """An attempt failed. ``next_at``: when the next begins; None: it is a dead letter now."""
    values = {"reason": reason[:64], "message": message[:1000], "answer": answer[:1000], "status": ""}
    if next_at is None:
        _end(session, {number: {**values, "state": "dead"}})
        return
    waiting = {**values, "state": "waiting", "next_at": next_at, "attempt": _c.attempt + 1}
    session.execute(notification.update().where(_c.id == number).values(**waiting))


def _end(session: Connection, ended: Mapping[int, Mapping[str, Any]]) -> None:
    """Write what became of messages, by number; all have the same columns."""
    if not ended:
        return
    always = {"ended_at": moment(session), "attempt": _c.attempt + 1}
    session.execute(
        notification.update().where(_c.id == sa.bindparam("number")).values(always),
        [{"number": number, **values} for number, values in ended.items()],
    )
    # A subject stands in the way of later messages about it only while this one has not ended.
    mine = notification_subject.c.notification_id.in_(list(ended))
    session.execute(notification_subject.delete().where(mine))


def replay(session: Connection, uids: Sequence[str]) -> int:
    """Dead letters wait again, at once, under their ids. Returns how many."""
    now = epoch(session)
    mine = (_c.uid.in_(list(uids)), _c.state == "dead")
    # The id stays: a receiver that got the message after all, but whose answer was lost, recognises it.
    values = {"state": "waiting", "next_at": now, "attempt": 0, "ended_at": None, "reason": "", "message": ""}
    rows = session.execute(
        notification.update().where(*mine).values(**values).returning(_c.id, _c.subscription_id, _c.events)
    ).all()
    subjects = [
        {"notification_id": row.id, "subject": subject, "subscription_id": row.subscription_id}
        for row in rows
        for subject in sorted({event["subject"] for event in row.events})
    ]
    insert_new(session, notification_subject, subjects)
    channels = sa.select(_c.channel_id).where(_c.uid.in_(list(uids)))
    session.execute(
        notification_channel.update().where(notification_channel.c.id.in_(channels)).values(paused_until=None)
    )
    return len(rows)


def dead(session: Connection, channel_id: str, limit: int) -> list[str]:
    """The ids of a channel's dead letters, the oldest first."""
    query = sa.select(_c.uid).where(_c.channel_id == channel_id, _c.state == "dead").order_by(_c.id)
    return list(session.execute(query.limit(limit)).scalars())


def get(session: Connection, uid: str) -> NotificationView:
    """Raises NotFoundError."""
    found = _views(session, _c.uid == uid)
    if not found:
        raise NotFoundError("there is no such delivery")
    return found[0]


def list_notifications(
    session: Connection,
    channel_ids: Collection[str] | None,
    *,
    states: Sequence[str] = (),
    cursor: str | None = None,
    limit: int = 50,
) -> Page[NotificationView]:
    """Messages, newest first. ``channel_ids`` None: of every channel."""
    where: list[sa.ColumnElement[bool]] = [sa.true()]
    if channel_ids is not None:
        where.append(_c.channel_id.in_(list(channel_ids)))
    if states:
        where.append(_c.state.in_(list(states)))
    if cursor:
        where.append(_c.id < decode_cursor(cursor, (int,))[0])
    found = _views(session, sa.and_(*where), limit=limit + 1)
    more = len(found) > limit
    return Page(found[:limit], encode_cursor(found[limit - 1].id) if more else None)


@dataclass(frozen=True)
class Figures:
    """For metrics. ``by_state`` maps (format of the channel, state) to a count; ``oldest`` is in seconds."""

    by_state: Mapping[tuple[str, str], int]
    oldest_seconds: float


def figures(session: Connection) -> Figures:
    """Counts of what is kept, and since when the oldest message is overdue."""
    joined = sa.select(notification_channel.c.format, _c.state, sa.func.count()).join(
        notification_channel, notification_channel.c.id == _c.channel_id
    )
    counts = session.execute(joined.group_by(notification_channel.c.format, _c.state)).all()
    oldest = session.execute(sa.select(sa.func.min(_c.next_at)).where(_c.state.in_(_OPEN))).scalar()
    late = max(0.0, epoch(session) - oldest) if oldest is not None else 0.0
    return Figures({(form, state): count for form, state, count in counts}, late)


def _views(
    session: Connection, where: sa.ColumnElement[bool], *, limit: int | None = None, descending: bool = True
) -> tuple[NotificationView, ...]:
    query = sa.select(*_c, notification_channel.c.name.label("channel")).join(
        notification_channel, notification_channel.c.id == _c.channel_id
    )
    query = query.where(where).order_by(_c.id.desc() if descending else _c.id).limit(limit)
    return tuple(map(_view, session.execute(query).mappings()))


def _view(row: RowMapping) -> NotificationView:
    values: dict[str, Any] = {name: row[name] for name in NotificationView.__dataclass_fields__}
    return NotificationView(**{**values, "level": Level(row["level"]), "events": tuple(map(occurrence, row["events"]))})


def _event_json(row: Row) -> dict[str, Any]:
    event = row.event
    head = {"id": row.event_id, "kind": event.kind.value, "subject": event.subject, "project": event.project}
    return {**head, "at": row.at.isoformat(), **to_json(event)}


def occurrence(document: Mapping[str, Any]) -> Occurrence:
    event = from_json(document["kind"], document["subject"], document["project"], dict(document))
    return Occurrence(document["id"], event, datetime.fromisoformat(document["at"]))
