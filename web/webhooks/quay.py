"""Quay: the pushed tags, without digests, ids, or any authentication of the sender.

Quay's ``notifications/notificationevent.py``. Quay disables a webhook after three failed deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence

from scanner.errors import UsageError
from web.webhooks.base import PathSecret, PushEvent, UnreadableEvent, each, envelope, split_image, text


class Quay(PathSecret):
    id = "quay"
    title = "Quay"
    senders = "quay.io, Red Hat Quay"
    setup = (
        "In the repository's settings, under Events and Notifications, create a notification for Push to Repository "
        "with the method Webhook POST and this address. Leave the body template empty."
    )
    snippet = "Webhook URL: <url>\n"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. Builds and scans use the same envelope, without updated tags."""
        document = envelope(body, "docker_url")
        tags = document.get("updated_tags")
        if tags is None:
            return [PushEvent("", "", action="other")]
        if not isinstance(tags, list | dict):  # old versions: an object whose keys are the tags
            return [UnreadableEvent("updated_tags is not a list")]

        def read(tag: object) -> PushEvent:
            host, repository, _, _ = split_image(text(document["docker_url"], "docker_url"), "docker_url")
            if not isinstance(tag, str):
                raise UsageError("a tag is not a string", reason="invalid")
            return PushEvent(host, repository, text(tag, "updated_tags"))

        return each(tags, read)
