"""Sonatype Nexus Repository: the component and asset events of a repository's webhook, signed with HMAC-SHA1.

https://help.sonatype.com/en/working-with-http-webhooks.html. Nexus signs with SHA-1 only. That is acceptable, because
collisions of SHA-1 do not break an HMAC.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from web.webhooks.base import PushEvent, SignedBody, UnreadableEvent, child, each, envelope, tag_and_digest, text

# The name of a manifest among assets. Nexus writes it with and without the first slash.
_MANIFEST = re.compile(r"/?v2/(.+)/manifests/([^/]+)")


class Nexus(SignedBody):
    id = "nexus"
    title = "Sonatype Nexus Repository"
    senders = "Nexus Repository 3"
    setup = (
        "Under System, Capabilities, create the capability Webhook: Repository for the docker repository, with these "
        "values. The registry is the repository's own connector (host and port)."
    )
    snippet = """\
Event types: component, asset
URL: <url>
Secret key: <token>
"""
    header = "X-Nexus-Webhook-Signature"
    signature_headers = ("X-Nexus-Webhook-Signature",)
    hash_name = "sha1"
    delivery_header = "X-Nexus-Webhook-Delivery"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. Components of other formats, blobs and tag lists are not image pushes."""
        return each([envelope(body, "repositoryName", "action")], _event)


def _event(document: dict[str, Any]) -> PushEvent:
    """Parse an event. A second push of a tag may change only its asset, the manifest, and not the component."""
    component, asset = child(document, "component"), child(document, "asset")
    action, kind = text(document.get("action"), "action"), text((component or asset).get("format"), "format")
    name, version = text((component or asset).get("name"), "name"), text(component.get("version"), "version")
    manifest = None if component else _MANIFEST.fullmatch(name)
    if kind != "docker" or action not in ("CREATED", "UPDATED") or not (component or manifest):
        return PushEvent("", "", action=f"{kind} {action}")
    name, version = (manifest[1], manifest[2]) if manifest else (name, version)
    tag, digest = tag_and_digest(version)
    return PushEvent("", name, tag, digest)
