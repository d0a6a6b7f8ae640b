"""Docker Hub: the tag that was pushed, without a digest, an id or anything that authenticates the sender.

https://docs.docker.com/docker-hub/repos/manage/webhooks/. ``callback_url`` is never called: a payload chooses no
address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web.webhooks.base import PathSecret, PushEvent, UnreadableEvent, child, each, envelope, text


class Dockerhub(PathSecret):
    id = "dockerhub"
    title = "Docker Hub"
    senders = "Docker Hub"
    setup = "In the repository on hub.docker.com, under Webhooks, add this address. The registry's host is docker.io."
    snippet = "Webhook URL: <url>\n"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. Each delivery is a push: what the tag names is read when it is scanned."""
        return each([envelope(body, "push_data", "repository")], _event)


def _event(document: dict[str, Any]) -> PushEvent:
    pushed = child(document, "push_data")
    return PushEvent(
        host="",
        repository=text(child(document, "repository").get("repo_name"), "repo_name"),
        tag=text(pushed.get("tag"), "tag"),
        media_type=text(pushed.get("media_type"), "media_type"),
    )
