"""Docker Hub: the pushed tag, without digest, id, or any authentication of the sender.

https://docs.docker.com/docker-hub/repos/manage/webhooks/. ``callback_url`` is never called (SSRF).
"""

from __future__ import annotations

from collections.abc import Sequence

from web.webhooks.base import PathSecret, PushEvent, UnreadableEvent, push_data


class Dockerhub(PathSecret):
    id = "dockerhub"
    title = "Docker Hub"
    senders = "Docker Hub"
    setup = "In the repository on hub.docker.com, under Webhooks, add this address. The registry's host is docker.io."
    snippet = "Webhook URL: <url>\n"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. Each delivery is a push; the scan reads what the tag names."""
        return push_data(body, "repo_name")
