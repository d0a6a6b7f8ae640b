"""Alibaba Cloud Container Registry: the tag and the digest, without anything that authenticates the sender.

https://www.alibabacloud.com/help/en/acr/user-guide/manage-webhooks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web.webhooks.base import PathSecret, PushEvent, UnreadableEvent, child, each, envelope, number, text


class Aliyun(PathSecret):
    id = "aliyun"
    title = "Alibaba Cloud Container Registry"
    senders = "Alibaba Cloud Container Registry"
    setup = "In the repository, under Trigger, add a trigger for all tags with this address."
    snippet = "Trigger URL: <url>\n"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. Its region names no host: editions of the registry have hosts of their own."""
        return each([envelope(body, "push_data", "repository")], _event)


def _event(document: dict[str, Any]) -> PushEvent:
    pushed = child(document, "push_data")
    return PushEvent(
        host="",
        repository=text(child(document, "repository").get("repo_full_name"), "repo_full_name"),
        tag=text(pushed.get("tag"), "tag"),
        digest=text(pushed.get("digest"), "digest"),
        id=number(pushed.get("pushed_at"), "pushed_at"),
    )
