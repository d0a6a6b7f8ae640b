"""A sample: a registry that sends the repository and the tag."""

from __future__ import annotations

from collections.abc import Sequence

from web.webhooks.base import HeaderSecret, PushEvent, UnreadableEvent, envelope, text


class SampleWebhook(HeaderSecret):
    """``{"repository": "team/app", "tag": "1"}``."""

    id = "sample-webhook"
    title = "Sample registry"
    senders = "nobody"
    setup = "Have the registry POST to the address, with the secret in the header."
    snippet = "<url>\n<header>: <secret>\n"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`."""
        document = envelope(body, "repository")
        return [PushEvent("", text(document["repository"], "repository"), text(document["tag"], "tag"))]
