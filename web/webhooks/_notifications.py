"""The notifications of CNCF Distribution (``notifications/event.go``), which several registries send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scanner.errors import UsageError
from web.webhooks.base import PushEvent, UnreadableEvent, child, each, load, text

MEDIA_TYPES = (
    "application/vnd.docker.distribution.events.v2+json",
    "application/vnd.docker.distribution.events.v1+json",
)


def notifications(body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
    """The events of an envelope. Raises UsageError for what is no envelope at all."""
    document = load(body)
    events = document.get("events") if isinstance(document, dict) else None
    if not isinstance(events, list):
        raise UsageError("expected an object with a list of events", reason="invalid")
    return each(events, notification)


def notification(event: Any) -> PushEvent:
    """``target.url`` is not even read: nothing in a payload may choose where we connect to."""
    if not isinstance(event, dict):
        raise UsageError("an event is not an object", reason="invalid")
    target, asked = child(event, "target"), child(event, "request")
    return PushEvent(
        host=text(asked.get("host"), "request.host"),
        repository=text(target.get("repository"), "target.repository"),
        tag=text(target.get("tag"), "target.tag"),
        digest=text(target.get("digest"), "target.digest"),
        media_type=text(target.get("mediaType"), "target.mediaType"),
        action=text(event.get("action"), "action"),
        id=text(event.get("id"), "id"),
    )
