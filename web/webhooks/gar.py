"""Google Artifact Registry: Pub/Sub push deliveries of the topic ``gcr``, each with a token that Google signs.

https://cloud.google.com/artifact-registry/docs/configure-notifications and
https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions. The token's audience is the webhook's secret, so
the token of another subscription is not accepted, and two secrets are valid while the secret is rotated.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from werkzeug.datastructures import Headers

from scanner.config import Secret
from scanner.errors import RemoteError, UsageError
from scanner.model.untrusted import load_untrusted_json
from web.signed_tokens import moment, unverified_part, verified_claims
from web.webhooks.base import (
    Fetch,
    PushEvent,
    UnreadableEvent,
    WebhookFormat,
    bearer_or_plain,
    child,
    each,
    envelope,
    split_image,
    text,
)

KEYS = "https://www.googleapis.com/oauth2/v3/certs"
_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
# Seconds: Google's keys, before an unknown key is looked for again, and between clocks.
_KEPT, _LOOK_AGAIN, _LEEWAY = 3600.0, 60.0, 60.0
# Characters: Google's tokens have about a thousand.
_TOKEN_LIMIT = 8 << 10


class Gar(WebhookFormat):
    id = "gar"
    title = "Google Artifact Registry"
    senders = "Google Artifact Registry, Container Registry"
    setup = "Let Pub/Sub push the registry's events here, signed as the service account."
    snippet = """\
gcloud pubsub topics create gcr
gcloud pubsub subscriptions create dockwarden --topic=gcr --ack-deadline=30 \\
  --push-endpoint=<url> \\
  --push-auth-service-account=<sender> \\
  --push-auth-token-audience=<token>
"""
    authenticity = "token"
    signs_body = False
    sender_label = "E-mail of the service account that signs"
    sender_pattern = r"[A-Za-z0-9._%+-]{1,128}@[A-Za-z0-9.-]{1,200}"
    sender_example = "pusher@project.iam.gserviceaccount.com"
    sender_required = True

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`. Compares the audience before the signature. Pub/Sub ignores its case."""
        audience = _unverified_claims(_token(headers)).get("aud")
        if not isinstance(audience, str) or not secret:
            return False
        return hmac.compare_digest(audience.lower().encode("utf-8", "replace"), secret.reveal().lower().encode())

    def verify_sender(self, body: bytes, headers: Headers, sender: str, fetch: Fetch) -> bool:
        """See `WebhookFormat.verify_sender`. For an unknown key id the keys are fetched again."""
        token, now = _token(headers), time.time()
        # Any Google account can have a token signed for any audience, so a token without a known sender proves
        # nothing.
        if not sender:
            return False
        return verify(token, _keys(fetch(KEYS, _KEPT)), sender, now) or verify(
            token, _keys(fetch(KEYS, _LOOK_AGAIN)), sender, now
        )

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`."""
        return each([envelope(body, "message")], _event)


def verify(token: str, keys: KeySet, sender: str, now: float) -> bool:
    """Whether Google signed this token for ``sender`` and it is valid at ``now``. The audience was compared before."""
    claims = verified_claims(token, keys, ["RS256"])
    if claims is None:
        return False
    expires, issued = moment(claims.get("exp")), moment(claims.get("iat"))
    return (
        claims.get("iss") in _ISSUERS
        and claims.get("email") == sender
        # Google signs unverified addresses too. Anyone may claim those.
        and claims.get("email_verified") is True
        and expires is not None
        and expires + _LEEWAY > now
        and issued is not None
        and issued - _LEEWAY <= now
    )


def _event(document: dict[str, Any]) -> PushEvent:
    """Parse an event. ``tag`` and ``digest`` are whole references; without a digest, a tag was deleted."""
    message = child(document, "message")
    try:
        data = base64.b64decode(text(message.get("data"), "message.data", maximum=64 << 10), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("message.data is not base64", reason="invalid") from error
    event = load_untrusted_json(data, limit=64 << 10, depth=8, error=UsageError, reason="invalid")
    if not isinstance(event, dict):
        raise UsageError("message.data is not an object", reason="invalid")
    action = text(event.get("action"), "action")
    if action != "INSERT":
        return PushEvent("", "", action=action)
    image = text(event.get("digest"), "digest") or text(event.get("tag"), "tag")
    host, repository, tag, digest = split_image(image, "digest")
    if event.get("tag"):
        tagged_host, tagged, tag, more = split_image(text(event.get("tag"), "tag"), "tag")
        # The digest would be scanned under the tag's repository, and its evidence would count for another image.
        if (tagged_host, tagged, more) != (host, repository, ""):
            raise UsageError("the tag and the digest name different repositories", reason="invalid")
    return PushEvent(host, repository, tag, digest, id=text(message.get("messageId"), "messageId"))


def _token(headers: Headers) -> str:
    sent = headers.get("Authorization", "")
    return bearer_or_plain(sent) if len(sent) <= _TOKEN_LIMIT else ""


def _unverified_claims(token: str) -> Mapping[str, Any]:
    """The claims of a token without verification. Empty if it is not a token."""
    return unverified_part([*token.split("."), ""][1]) or {}


def _keys(document: bytes) -> KeySet:
    """Google's public keys. Raises RemoteError if the document is not a key set."""
    found = load_untrusted_json(document, limit=256 << 10, depth=8, error=RemoteError)
    listed = found.get("keys") if isinstance(found, dict) else None
    usable = [k for k in (listed if isinstance(listed, list) else []) if isinstance(k, dict) and k.get("kty") == "RSA"]
    try:
        return KeySet.import_key_set({"keys": usable})
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise RemoteError("Google's keys cannot be read") from error
