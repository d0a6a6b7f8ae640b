"""CNCF Distribution (``registry:2``, ``registry:3``, GitLab's and others built on it): notification envelopes, v1
and v2.

https://distribution.github.io/distribution/about/notifications/ and ``notifications/event.go``. The registry can
only send fixed headers, so the secret is a bearer token in one of them, or in the path where even that cannot be
set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from werkzeug.datastructures import Headers

from scanner.config import Secret
from scanner.errors import UsageError
from web.webhooks.base import (
    MAX_EVENTS,
    PushEvent,
    UnreadableEvent,
    WebhookFormat,
    bearer_or_plain,
    load,
    same_secret,
    text,
)


class Distribution(WebhookFormat):
    id = "distribution"
    title = "CNCF Distribution registry"
    senders = "`registry:2`, `registry:3`, Debian's `docker-registry`, GitLab's container registry"
    setup = "Put this into the registry's config.yml and restart the registry."
    snippet = """\
notifications:
  endpoints:
    - name: dockwarden
      url: <url>
      headers:
        <header>: ["<secret>"]
      timeout: 2s
      threshold: 5
      backoff: 10s
"""
    media_types: ClassVar[tuple[str, ...]] = (
        "application/vnd.docker.distribution.events.v2+json",
        "application/vnd.docker.distribution.events.v1+json",
    )

    signs_body = False

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`.

        Both places are always compared, so that time tells nothing about either.
        """
        in_header = same_secret(bearer_or_plain(headers.get(header, "")), secret)
        in_path = same_secret(path_token, secret)
        return in_header or in_path

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`.

        The registry repeats a delivery that is refused for ever, and sends no later one meanwhile: only what is no
        envelope at all is refused.
        """
        document = load(body)
        events = document.get("events") if isinstance(document, dict) else None
        if not isinstance(events, list):
            raise UsageError("expected an object with a list of events", reason="invalid")
        found = [_readable(event) for event in events[:MAX_EVENTS]]
        if len(events) > MAX_EVENTS:
            found.append(UnreadableEvent(f"{len(events) - MAX_EVENTS} events beyond the first {MAX_EVENTS}"))
        return found


def _readable(event: Any) -> PushEvent | UnreadableEvent:
    try:
        return _event(event)
    except UsageError as error:
        return UnreadableEvent(str(error))


def _event(event: Any) -> PushEvent:
    """``target.url`` is not even read: nothing in a payload may choose where we connect to."""
    if not isinstance(event, dict):
        raise UsageError("an event is not an object", reason="invalid")
    target, asked = event.get("target") or {}, event.get("request") or {}
    if not isinstance(target, dict) or not isinstance(asked, dict):
        raise UsageError("an event's target or request is not an object", reason="invalid")
    return PushEvent(
        host=text(asked.get("host"), "request.host"),
        repository=text(target.get("repository"), "target.repository"),
        tag=text(target.get("tag"), "target.tag"),
        digest=text(target.get("digest"), "target.digest"),
        media_type=text(target.get("mediaType"), "target.mediaType"),
        action=text(event.get("action"), "action"),
        id=text(event.get("id"), "id"),
    )
