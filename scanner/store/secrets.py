"""Secrets at rest: AES-256-GCM under a key that is not in the database, bound to the row and field they belong to.

A ciphertext copied to another row does not decrypt; one that was changed neither.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from scanner.config import Secret
from scanner.errors import ScannerError

_NONCE = 12


def seal(value: Secret, key: Secret, place: str) -> bytes:
    """Encrypt ``value`` for ``place`` ("table|id|field")."""
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(_derive(key)).encrypt(nonce, value.reveal().encode(), place.encode())


def unseal(sealed: bytes, key: Secret, place: str) -> Secret:
    """Raises ScannerError(reason="secret_unreadable") when the key is another one or the bytes were changed."""
    try:
        return Secret(AESGCM(_derive(key)).decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode()).decode())
    except InvalidTag:
        raise ScannerError(
            "a stored secret cannot be read",
            reason="secret_unreadable",
            hint="was DOCKWARDEN_SECRET_KEY or home/secret_key changed?",
        ) from None


def _derive(key: Secret) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"dockwarden secrets at rest").derive(key.reveal().encode())
