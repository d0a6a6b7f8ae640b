"""Notifications: what happened (`Event`), and what a channel sends about it (`Message`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from scanner.model.plurals import number_of
from scanner.model.untrusted import clean_text

TITLE_LENGTH = 250  # ticket systems cut longer ones (Jira: 255)


class EventKind(StrEnum):
    """What can happen. The value is stored and compared by scripts: it never changes."""

    IMAGE_DENIED = "image.denied"
    IMAGE_DECIDED = "image.decided"
    VULNERABILITY_NEW = "vulnerability.new"
    EXEMPTION_REQUESTED = "exemption.requested"
    EXEMPTION_EXPIRING = "exemption.expiring"
    EXEMPTION_LAPSED = "exemption.lapsed"
    SIGNATURE_EXPIRING = "signature.expiring"
    TAG_MOVED = "tag.moved"
    BASE_NEWER = "base.newer"
    REGISTRY_WORSE = "registry.worse"
    ADVISORIES_STALE = "advisories.stale"
    RECEIVER_FAILING = "receiver.failing"
    QUEUE_STUCK = "queue.stuck"
    RECEIPTS_UNSIGNED = "receipts.unsigned"
    BREAK_GLASS = "break-glass"
    TEST = "test"

    @property
    def label(self) -> str:
        return LABELS[self]


LABELS: Mapping[EventKind, str] = {
    EventKind.IMAGE_DENIED: "An image is denied, or no longer denied",
    EventKind.IMAGE_DECIDED: "An image is allowed, or allowed with warnings",
    EventKind.VULNERABILITY_NEW: "A critical or exploited vulnerability is new on a known or running image, or fixed",
    EventKind.EXEMPTION_REQUESTED: "An exemption is requested",
    EventKind.EXEMPTION_EXPIRING: "An exemption expires within a week",
    EventKind.EXEMPTION_LAPSED: "An exemption lapsed or expired",
    EventKind.SIGNATURE_EXPIRING: "The signature of a tag expires within two weeks",
    EventKind.TAG_MOVED: "A tag names another image than before",
    EventKind.BASE_NEWER: "A base image has a newer version",
    EventKind.REGISTRY_WORSE: "More checks of a registry fail than before",
    EventKind.ADVISORIES_STALE: "The advisory database is too old, or fresh again",
    EventKind.RECEIVER_FAILING: "A notification channel fails, or works again",
    EventKind.QUEUE_STUCK: "Scans wait too long for a worker, or no longer do",
    EventKind.RECEIPTS_UNSIGNED: "Receipts cannot be signed, or can be again",
    EventKind.BREAK_GLASS: "An image was allowed by break-glass",
    EventKind.TEST: "A test of a channel",
}
SUBSCRIBABLE = tuple(kind for kind in EventKind if kind is not EventKind.TEST)


class Level(StrEnum):
    """How urgent an event is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return tuple(Level).index(self)


@dataclass(frozen=True)
class Event:
    """Something that happened.

    ``subject``: what it is about; the events of one subject are sent in their order. ``group``: events of one kind and
    group share a message; empty: the subject. ``headline``: one sentence about the group; ``item``: the member of the
    group, such as an image's name. ``resolved``: it is no longer so. ``path``: the page that shows it. ``data``: JSON
    values, for filters and for receivers that are programs.
    """

    kind: EventKind
    subject: str
    headline: str
    project: str = ""
    group: str = ""
    item: str = ""
    level: Level = Level.WARNING
    resolved: bool = False
    path: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Occurrence:
    """An event as a channel sends it. ``id`` is unique and stable; ``url`` is empty while no public URL is set."""

    id: str
    event: Event
    at: datetime
    url: str = ""


@dataclass(frozen=True)
class Message:
    """What a channel sends.

    ``id`` is the same at every attempt. ``group``: the key under which tickets and alerts are found again.
    ``occurrences`` may be fewer than ``count``: the rest is only counted. ``recipient``: a person's own address, for
    channels that have one for each person.
    """

    id: str
    kind: str
    group: str
    title: str
    level: Level
    resolved: bool  # it reports the end of a problem
    occurrences: tuple[Occurrence, ...]
    count: int
    at: datetime  # of the newest event
    project: str = ""
    url: str = ""  # of the page about it; empty: no public address is configured
    recipient: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each occurrence, plain text."""
        several = len({occurrence.event.headline for occurrence in self.occurrences}) > 1
        return tuple(_line(occurrence.event, several) for occurrence in self.occurrences)

    @property
    def more(self) -> int:
        """How many occurrences are only counted."""
        return self.count - len(self.occurrences)


def _line(event: Event, headline: bool) -> str:
    if not event.item:
        return event.headline
    return f"{event.headline}: {event.item}" if headline else event.item


def title_of(events: tuple[Event, ...], count: int) -> str:
    """The title of a message about these events: one line without control characters, because it becomes a header."""
    first = events[0]
    if len({(event.headline, event.resolved) for event in events}) > 1:
        return number_of(count, "event")
    if count == 1:
        return clean_text(_line(first, True), TITLE_LENGTH)
    return f"{clean_text(first.headline, TITLE_LENGTH)}: {count} {'images' if first.item else 'times'}"
