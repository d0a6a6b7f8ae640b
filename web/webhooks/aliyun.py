"""Alibaba Cloud Container Registry: tag and digest, without any authentication of the sender.

https://www.alibabacloud.com/help/en/acr/user-guide/manage-webhooks
"""

from __future__ import annotations

from collections.abc import Sequence

from web.webhooks.base import PathSecret, PushEvent, UnreadableEvent, push_data


class Aliyun(PathSecret):
    id = "aliyun"
    title = "Alibaba Cloud Container Registry"
    senders = "Alibaba Cloud Container Registry"
    setup = "In the repository, under Trigger, add a trigger for all tags with this address."
    snippet = "Trigger URL: <url>\n"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`.

        The host is unknown: a region does not determine it, because editions have own hosts.
        """
        return push_data(body, "repo_full_name", id_member="pushed_at")
