"""What the clients of key management services share: the key as it is published, and errors that say what is missing.

No error quotes an answer except its error code, because an answer can repeat what was sent.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scanner.errors import RemoteError, ScannerError, UsageError
from scanner.model.untrusted import load_untrusted_json
from scanner.outbound import Answer
from scanner.registry.cloud.base import error_code

REFUSED, UNAVAILABLE = "kms_refused", "kms_unavailable"
_MAX_ANSWER = 64 << 10
_NOT_P256 = "create a key for signing with ECDSA on P-256 (SHA-256); see docs/receipts.md, Keys"
# Codes by which the services say that something else than a permission is missing.
_HINTS = {
    "NotFoundException": "there is no such key in this region and account",
    "KeyNotFound": "there is no key of this name and version in the vault",
    "NOT_FOUND": "there is no such key version",
    "DisabledException": "the key is disabled: enable it, or rotate to another one",
    "KeyDisabled": "the key is disabled: enable it, or rotate to another one",
    "KMSInvalidStateException": "the key is pending deletion or import: rotate to another one",
    "FAILED_PRECONDITION": "the key version is not enabled: enable it, or rotate to another one",
    "InvalidKeyUsageException": _NOT_P256,
    "INVALID_ARGUMENT": _NOT_P256,
    "ExpiredTokenException": "the session has ended: renew AWS_SESSION_TOKEN, or use the role of this machine",
    "UnrecognizedClientException": "the access key is not valid: check AWS_ACCESS_KEY_ID",
    "InvalidSignatureException": "the secret access key is wrong, or this machine's clock is",
}
# Another try may succeed.
_BUSY = frozenset({"ThrottlingException", "Throttling", "KeyUnavailableException", "RESOURCE_EXHAUSTED"})


@dataclass(frozen=True)
class KmsKey:
    """A key of a service. ``address`` names exactly this version of it; ``public_pem`` is what verifiers trust."""

    address: str
    public_pem: str


class KeyService(Protocol):
    """One key of a service, as a reference names it. Raises RemoteError (``kms_refused``, ``kms_unavailable``)."""

    def fetch(self) -> KmsKey:
        """Return the key that the reference leads to now, by the address of its present version."""
        ...

    def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        """Return an ECDSA signature in DER for each SHA-256 digest. The reference is the address of one version."""
        ...


def read_answer(answer: Answer, who: str, permission: str) -> Mapping[str, Any]:
    """Return the JSON object of a successful answer. ``permission``: what our identity needs for this request."""
    code = error_code(answer)
    if answer.status == 429 or answer.status >= 500 or code in _BUSY:
        raise RemoteError(f"{who} answered {answer.status}{f' ({code})' if code else ''}", reason=UNAVAILABLE)
    if answer.status != 200:
        # A redirect ends here as well: it would lead the credentials elsewhere.
        hint = _HINTS.get(code) or (_HINTS["NOT_FOUND"] if answer.status == 404 else f"the identity needs {permission}")
        raise RemoteError(
            f"{who} refused the request: {code or f'status {answer.status}'}",
            reason=REFUSED,
            hint=hint,
            retryable=False,
        )
    found = load_untrusted_json(answer.body, limit=_MAX_ANSWER, error=RemoteError)
    if not isinstance(found, dict):
        raise unusable_answer(who, "it is not a JSON object")
    return found


def unusable_answer(who: str, why: str) -> RemoteError:
    return RemoteError(f"the answer of {who} cannot be used: {why}", reason=UNAVAILABLE, retryable=False)


def decode_base64(value: object, who: str, what: str) -> bytes:
    """Decode a member of an answer. ``what`` names it in the error. Raises RemoteError for anything but base64."""
    try:
        return base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except (binascii.Error, ValueError):
        raise unusable_answer(who, f"{what} is not base64") from None


def credentials_error(error: ScannerError, who: str, hint: str) -> RemoteError:
    """The error for credentials that could not be obtained. The clients of the clouds advise about registries."""
    return RemoteError(f"no credentials for {who}: {error}", reason=REFUSED, hint=hint, retryable=error.retryable)


def reference_error(reference: str, form: str) -> UsageError:
    return UsageError(
        f"DOCKWARDEN_RECEIPT_KMS_KEY is not the reference of a key: {reference[:200]!r}", hint=f"write {form}"
    )


def public_pem(data: bytes, who: str) -> str:
    """Return a public key as PEM. ``data``: DER or PEM. Raises UsageError for another kind than ECDSA P-256."""
    load = serialization.load_pem_public_key if data.startswith(b"-----") else serialization.load_der_public_key
    try:
        key = load(data)
    except (ValueError, UnsupportedAlgorithm):
        raise unusable_answer(who, "it has no public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"the key of {who} is of a kind that signs no receipts", reason=REFUSED, hint=_NOT_P256)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()
