"""The key management service that a reference leads to, and signatures that are verified before they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from scanner.config import Settings
from scanner.errors import RemoteError, UsageError
from scanner.registry.cloud.base import Surroundings
from scanner.trust._kms import aws, azure, google, vault
from scanner.trust._kms.base import REFUSED, KeyService, KmsKey
from scanner.trust._pki import load_public_key, verify_signature

_SERVICES: dict[str, Callable[[str, Surroundings], KeyService]] = {
    "awskms": aws.AwsKey,
    "gcpkms": google.GoogleKey,
    "azurekms": azure.AzureKey,
    "hashivault": vault.VaultKey,
}


def is_address(text: str) -> bool:
    """Return whether this is the address of a key in a service, and not a key."""
    return text.partition("://")[0] in _SERVICES


def service_of(reference: str, around: Surroundings) -> KeyService:
    """Return the client for a reference. Raises UsageError if no service has such references."""
    scheme, separator, _ = reference.partition("://")
    if not separator or scheme not in _SERVICES:
        raise UsageError(
            f"DOCKWARDEN_RECEIPT_KMS_KEY names no key management service: {reference[:200]!r}",
            hint="it begins with " + ", ".join(f"{name}://" for name in _SERVICES),
        )
    return _SERVICES[scheme](reference, around)


def fetch_key(settings: Settings) -> KmsKey:
    """Return the key that the setting ``receipt_kms_key`` leads to now, after it signed something.

    A key that can be read but not used for signing would be published, and then sign nothing.
    """
    found = service_of(settings.receipt_kms_key, Surroundings(settings)).fetch()
    sign(settings, found, [b"dockwarden: test of a key for receipts"])
    return found


def sign(settings: Settings, key: KmsKey, messages: Sequence[bytes]) -> list[bytes]:
    """Return a signature of each message by the key. Raises as `sign_verified`, UsageError."""
    return sign_verified(service_of(key.address, Surroundings(settings)), key, messages)


def sign_verified(service: KeyService, key: KmsKey, messages: Sequence[bytes]) -> list[bytes]:
    """Return a signature of each message, verified with the public key that verifiers have.

    Without that, a service that lost or exchanged the key would give receipts that every verifier refuses.
    """
    signatures = service.sign([hashlib.sha256(message).digest() for message in messages])
    public = load_public_key(key.public_pem)
    pairs = zip(signatures, messages, strict=True)
    if not all(verify_signature(public, signature, message) for signature, message in pairs):
        raise RemoteError(
            f"the signature of {key.address} does not belong to the published key",
            reason=REFUSED,
            hint="was the key replaced? adopt the new one: dockwarden receipt rotate-key --overlap 0",
            retryable=False,
        )
    return signatures
