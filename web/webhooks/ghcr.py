"""GitHub's container registry: the events ``package`` and ``registry_package`` of a GitHub webhook.

https://docs.github.com/webhooks/webhook-events-and-payloads#registry_package. ``X-Hub-Signature-256`` is an HMAC of the
body; the SHA-1 of ``X-Hub-Signature`` is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web.webhooks.base import (
    DIGESTS,
    PING,
    PushEvent,
    SignedBody,
    UnreadableEvent,
    child,
    each,
    envelope,
    split_image,
    tag_and_digest,
    text,
)

_KEYS = ("registry_package", "package")


class Ghcr(SignedBody):
    id = "ghcr"
    title = "GitHub Container Registry"
    senders = "GitHub, GitHub Enterprise Server"
    setup = (
        "In the organisation's or repository's settings, under Webhooks, add a webhook with these values and let it "
        "send the events Packages and Registry packages. GitHub's ping turns the tick green."
    )
    snippet = """\
Payload URL: <url>
Content type: application/json
Secret: <token>
Events: Packages, Registry packages
"""
    header = "X-Hub-Signature-256"
    signature_headers = ("X-Hub-Signature-256",)
    delivery_header = "X-GitHub-Delivery"

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. Other GitHub events are ignored, e.g. if the webhook is subscribed to all."""
        document = envelope(body)
        key = next((key for key in _KEYS if key in document), "")
        if not key and "hook_id" in document:
            return [PushEvent("", "", action=PING)]
        if not key:
            # A body without a sender is no event of GitHub. It is refused, instead of being passed over as an event
            # of another kind.
            envelope(body, "sender")
            return [PushEvent("", "", action="other")]
        return each([document], lambda one: _event(one, key))


def _event(document: dict[str, Any], key: str) -> PushEvent:
    """Parse an event. For a push without a tag, the address ends with a colon and the tag is empty."""
    package = child(document, key)
    action = text(document.get("action"), "action")
    kind = text(package.get("package_type"), "package_type") or text(package.get("ecosystem"), "ecosystem")
    if kind.upper() != "CONTAINER" or action not in ("published", "updated"):
        return PushEvent("", "", action=f"{kind} {action}")
    version = child(package, "package_version")
    metadata = child(version, "container_metadata")
    tagged, manifest = child(metadata, "tag"), child(metadata, "manifest")
    _, digest = tag_and_digest(text(version.get("version"), "version"))
    digest = digest or text(tagged.get("digest"), "tag.digest") or text(manifest.get("digest"), "manifest.digest")
    tag, _ = tag_and_digest(text(tagged.get("name"), "tag.name"))
    address = text(version.get("package_url"), "package_url")
    if address:
        host, repository, named, _ = split_image(address, "package_url")
        tag = tag or ("" if named.startswith(DIGESTS) else named)
    else:
        host = ""
        repository = f"{text(package.get('namespace'), 'namespace')}/{text(package.get('name'), 'name')}"
    media_type = text(manifest.get("media_type"), "media_type")
    return PushEvent(host, repository.lower(), tag, digest, media_type)  # repository names are lower case
