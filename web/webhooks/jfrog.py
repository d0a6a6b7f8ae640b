"""JFrog Artifactory: the docker events of a webhook, with the secret or an HMAC of the body in a header.

https://jfrog.com/help/r/jfrog-platform-administration-documentation/webhooks. The same header has either; the setting
"use secret for payload signing" decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from werkzeug.datastructures import Headers

from scanner.config import Secret
from web.webhooks.base import (
    PushEvent,
    SignedBody,
    UnreadableEvent,
    child,
    each,
    envelope,
    same_secret,
    tag_and_digest,
    text,
)

_HEADER = "X-JFrog-Event-Auth"
# A promotion copies or moves an image to another repository, where it is new.
_PUSHES = ("pushed", "promoted")


class Jfrog(SignedBody):
    id = "jfrog"
    title = "JFrog Artifactory"
    senders = "JFrog Artifactory"
    setup = (
        "Under Administration, General, Webhooks, add a webhook for the Docker events Tag was pushed and Tag was "
        "promoted, for the repositories that images are pushed to and promoted to, with these values. "
        "Payload signing protects the body against changes in transit; without it the secret itself is sent."
    )
    snippet = """\
URL: <url>
Events: Docker, Tag was pushed, Tag was promoted
Secret token: <token>
Use secret for payload signing: on
"""
    header = _HEADER
    signature_headers = (_HEADER,)

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`."""
        # Both are compared, so that the time does not show which of the two a webhook uses.
        signed = super().authenticate(body, headers, path_token, secret, header)
        plain = same_secret(headers.get(_HEADER, ""), secret)
        return signed or plain

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`."""
        return each([envelope(body, "domain", "event_type")], _event)

    def named_at(self, host: str, event: PushEvent) -> PushEvent:
        """See `WebhookFormat.named_at`. With its sub-domain method, the repository key is in the host name."""
        key, _, image = event.repository.partition("/")
        if key and image and host.lower().startswith(f"{key.lower()}."):
            _, _, parent = host.partition(".")
            return replace(
                event, host=host if event.host.lower() in ("", parent.lower()) else event.host, repository=image
            )
        return event


def _event(document: dict[str, Any]) -> PushEvent:
    """Parse an event. ``sha256`` is the hash of the manifest: the digest without its algorithm."""
    domain, action = text(document.get("domain"), "domain"), text(document.get("event_type"), "event_type")
    if domain != "docker" or action not in _PUSHES:
        return PushEvent("", "", action=f"{domain} {action}")
    data = child(document, "data")
    origin = text(document.get("jpd_origin"), "jpd_origin").partition("://")[2]
    tag, named = tag_and_digest(text(data.get("tag"), "tag"))
    sha256 = text(data.get("sha256"), "sha256")
    return PushEvent(
        host=origin.partition("/")[0],
        repository=f"{text(data.get('repo_key'), 'repo_key')}/{text(data.get('image_name'), 'image_name')}",
        tag=tag,
        digest=f"sha256:{sha256}" if sha256 else named,
    )
