"""Gitea and Forgejo: the event ``package``, signed with an HMAC of the body.

Gitea's ``services/webhook/deliver.go`` and ``modules/structs/hook.go``. The version is a tag, or a digest if a manifest
was pushed without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web.webhooks.base import PING, PushEvent, SignedBody, UnreadableEvent, child, each, envelope, tag_and_digest, text


class Gitea(SignedBody):
    id = "gitea"
    title = "Gitea or Forgejo"
    senders = "Gitea, Forgejo"
    setup = (
        "In the organisation's or user's settings, under Webhooks, add a webhook of the type Gitea or Forgejo with "
        "these values. Test delivery turns the tick green."
    )
    snippet = """\
Target URL: <url>
HTTP method: POST
POST content type: application/json
Secret: <token>
Trigger on: Custom events, Package
"""
    header = "X-Gitea-Signature"
    signature_headers = ("X-Gitea-Signature", "X-Forgejo-Signature", "X-Hub-Signature-256")
    delivery_header = "X-Gitea-Delivery"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. Gitea's test delivery is a Git push event, which has no package."""
        document = envelope(body)
        if "package" not in document:
            # A body without a sender is no event of Gitea. Taken for a test delivery, it would turn the tick green.
            envelope(body, "sender")
            return [PushEvent("", "", action=PING)]
        return each([document], _event)


def _event(document: dict[str, Any]) -> PushEvent:
    package = child(document, "package")
    kind, action = text(package.get("type"), "type"), text(document.get("action"), "action")
    if kind != "container" or action != "created":
        return PushEvent("", "", action=f"{kind} {action}")
    owner = child(package, "owner")
    name = text(owner.get("login"), "owner.login") or text(owner.get("username"), "owner.username")
    tag, digest = tag_and_digest(text(package.get("version"), "version"))
    repository = f"{name}/{text(package.get('name'), 'name')}".lower()  # repository names are lower case
    return PushEvent("", repository, tag, digest)
