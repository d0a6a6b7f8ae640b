"""CNCF Distribution (``registry:2``, ``registry:3`` and others built on it): notification envelopes, v1 and v2.

https://distribution.github.io/distribution/about/notifications/ and ``notifications/event.go``. The registry can only
send fixed headers, so the secret is a bearer token in one of them, or in the path where even that cannot be set.
"""

from __future__ import annotations

from collections.abc import Sequence

from web.webhooks._notifications import MEDIA_TYPES, notifications
from web.webhooks.base import LARGEST_EVENT, HeaderSecret, PushEvent, UnreadableEvent


class Distribution(HeaderSecret):
    id = "distribution"
    title = "CNCF Distribution registry"
    senders = "`registry:2`, `registry:3`, Debian's `docker-registry`"
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
    media_types = MEDIA_TYPES
    body_limit = LARGEST_EVENT

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`.

        Only a body that is not an envelope is refused, because the registry repeats a refused delivery forever and
        meanwhile sends no later one.
        """
        return notifications(body)
