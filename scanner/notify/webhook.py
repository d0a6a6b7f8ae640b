"""Standard Webhooks: JSON with an id, a time and a signature. https://www.standardwebhooks.com"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scanner.config import Secret
from scanner.model.notification import Message
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target, as_document, invalid

_SYMMETRIC, _ASYMMETRIC = "whsec_", "whsk_"


class Webhook(ChannelFormat):
    """See `ChannelFormat`."""

    id = "webhook"
    title = "Webhook"
    purpose = "any program: JSON signed as in [Standard Webhooks](https://www.standardwebhooks.com)"
    setup = "The receiver verifies `webhook-signature` with the secret."
    fields = (
        Field("url", "Address", required=True, pattern=URL, example="https://hooks.example.com/dockwarden"),
        Field(
            "secret",
            "Signing secret",
            required=True,
            secret=True,
            example="whsec_…",
            hint="whsec_ and base64 of 24 to 64 bytes (HMAC, v1), or whsk_ and base64 of an Ed25519 key (v1a)",
        ),
        CA,
    )

    def check(self, values: Mapping[str, str]) -> None:
        """See `ChannelFormat.check`."""
        if values.get("secret"):
            _key(Secret(values["secret"]))

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        document = {"type": message.kind, "timestamp": message.at.isoformat(), "data": as_document(message)}
        body = json.dumps(document, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", **signature_headers(message.id, body, target.secret("secret"))}
        answer = target.request("POST", target.value("url"), content=body, headers=headers)
        return Receipt(str(answer.status), answer.text)


def signature_headers(identifier: str, body: bytes, secret: Secret, at: int | None = None) -> dict[str, str]:
    """The three headers of a message. Specification: "Signature scheme"."""
    moment = str(int(time.time()) if at is None else at)
    content = f"{identifier}.{moment}.".encode() + body
    version, key = _key(secret)
    if version == "v1":
        signature = hmac.digest(key, content, "sha256")
    else:
        signature = Ed25519PrivateKey.from_private_bytes(key).sign(content)
    text = f"{version},{base64.b64encode(signature).decode()}"
    return {"webhook-id": identifier, "webhook-timestamp": moment, "webhook-signature": text}


def _key(secret: Secret) -> tuple[str, bytes]:
    """The scheme and the key's bytes. Raises UsageError."""
    text = secret.reveal()
    version = "v1a" if text.startswith(_ASYMMETRIC) else "v1"
    try:
        key = base64.b64decode(text.removeprefix(_SYMMETRIC).removeprefix(_ASYMMETRIC), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if version == "v1" and not 24 <= len(key) <= 64:
        raise invalid("secret", "the secret must be base64 of 24 to 64 bytes", "openssl rand -base64 32")
    if version == "v1a":
        key = key[:32] if len(key) == 64 else key  # a seed with or without its public key
        if len(key) != 32:
            raise invalid("secret", "the key must be base64 of an Ed25519 private key")
    return version, key
