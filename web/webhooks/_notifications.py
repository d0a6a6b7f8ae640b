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
    """Parse the events of an envelope. Raises UsageError if the body is not an envelope."""
    document = load(body)
    events = document.get("events") if isinstance(document, dict) else None
    if not isinstance(events, list):
        raise UsageError("expected an object with a list of events", reason="invalid")
    return each(events, notification)


def notification(event: Any) -> PushEvent:
    """Parse one event. ``target.url`` is not read: a payload must not decide where we connect to (SSRF)."""
    if not isinstance(event, dict):
        raise UsageError("an event is not an object", reason="invalid")
    target, source = child(event, "target"), child(event, "request")
    return PushEvent(
        host=text(source.get("host"), "request.host"),
        repository=text(target.get("repository"), "target.repository"),
        tag=text(target.get("tag"), "target.tag"),
        digest=text(target.get("digest"), "target.digest"),
        media_type=text(target.get("mediaType"), "target.mediaType"),
        action=text(event.get("action"), "action"),
        id=text(event.get("id"), "id"),
    )
