"""Sonatype Nexus Repository: the component events of a repository's webhook, signed with HMAC-SHA1.

https://help.sonatype.com/en/working-with-http-webhooks.html. Nexus signs with SHA-1 only. That is acceptable, because
collisions of SHA-1 do not break an HMAC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web.webhooks.base import PushEvent, SignedBody, UnreadableEvent, child, each, envelope, tag_and_digest, text


class Nexus(SignedBody):
    id = "nexus"
    title = "Sonatype Nexus Repository"
    senders = "Nexus Repository 3"
    setup = (
        "Under System, Capabilities, create the capability Webhook: Repository for the docker repository, with these "
        "values. The registry is the repository's own connector (host and port)."
    )
    snippet = """\
Event types: component
URL: <url>
Secret key: <token>
"""
    header = "X-Nexus-Webhook-Signature"
    signature_headers = ("X-Nexus-Webhook-Signature",)
    hash_name = "sha1"
    delivery_header = "X-Nexus-Webhook-Delivery"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. Assets and components of other formats are not image pushes."""
        return each([envelope(body, "repositoryName", "action")], _event)


def _event(document: dict[str, Any]) -> PushEvent:
    component = child(document, "component")
    kind, action = text(component.get("format"), "format"), text(document.get("action"), "action")
    if kind != "docker" or action not in ("CREATED", "UPDATED"):
        return PushEvent("", "", action=f"{kind} {action}")
    tag, digest = tag_and_digest(text(component.get("version"), "version"))
    return PushEvent("", text(component.get("name"), "name"), tag, digest)
