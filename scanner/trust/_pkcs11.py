"""Keys of receipts in a PKCS#11 token (OASIS PKCS#11 2.40): the private half is created in it and never leaves it.

What we store in place of a private key is its address as a PKCS#11 URI (RFC 7512), which is no secret.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives import serialization

from scanner.config import Secret, Settings
from scanner.errors import RemoteError, UsageError
from scanner.model.untrusted import clean_text

if TYPE_CHECKING:
    from pkcs11 import Session

# RFC 7512
_URI = re.compile(r"pkcs11:token=([^;]{1,200});id=((?:%[0-9A-Fa-f]{2}){1,64});type=private", re.ASCII)
_LABEL = "dockwarden receipts"
_ID_BYTES = 16
# A process is logged in to a token once for all its sessions: a second login fails, and the end of the last session is
# the logout. So operations take turns.
_TURN = threading.Lock()


def is_reference(private: Secret) -> bool:
    """Return whether this is the address of a key in a token, and not a key."""
    return private.reveal().startswith("pkcs11:")


@dataclass(frozen=True)
class Token:
    """A configured token. Its methods raise RemoteError (reason ``token_unavailable``) and UsageError."""

    module: Path  # the vendor's library, loaded into this process
    label: str  # of the token, not of its slot: slots change with a restart
    pin: Secret

    @classmethod
    def of(cls, settings: Settings) -> Token | None:
        """Return the token of the settings, or None if there is none. Raises UsageError for half a configuration."""
        module, label = settings.receipt_pkcs11_module, settings.receipt_pkcs11_token
        if module is None and not label:
            return None
        if module is None or not label:
            missing = "DOCKWARDEN_RECEIPT_PKCS11_" + ("MODULE" if module is None else "TOKEN")
            raise UsageError(f"{missing} is not set", hint="a PKCS#11 token needs the module and the token's label")
        return cls(module, label, settings.receipt_pkcs11_pin)

    def create(self) -> tuple[Secret, str]:
        """Create an ECDSA P-256 key. Returns its address, and the public half as PEM."""
        with self._session(writing=True) as session:
            from pkcs11 import Attribute, KeyType, Mechanism
            from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

            identifier = secrets.token_bytes(_ID_BYTES)
            curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
            parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
            public, _ = parameters.generate_keypair(
                id=identifier,
                label=_LABEL,
                store=True,
                mechanism=Mechanism.EC_KEY_PAIR_GEN,
                # Many tokens allow more by default; a key that can be exported is no better than one in a file.
                private_template={
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                    Attribute.SIGN: True,
                    Attribute.DERIVE: False,
                },
            )
            der = encode_ec_public_key(public)
        key = serialization.load_der_public_key(der)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        address = f"pkcs11:token={quote(self.label, safe='')};id={_percent(identifier)};type=private"
        return Secret(address), key.public_bytes(serialization.Encoding.PEM, form).decode()

    def sign(self, reference: Secret, data: bytes) -> bytes:
        """Return an ECDSA signature with SHA-256 in DER."""
        identifier = self._id(reference)
        with self._session() as session:
            from pkcs11 import KeyType, Mechanism, ObjectClass
            from pkcs11.types import SignMixin
            from pkcs11.util.ec import encode_ecdsa_signature

            key = session.get_key(ObjectClass.PRIVATE_KEY, KeyType.EC, id=identifier)
            if not isinstance(key, SignMixin):
                raise UsageError("the key in the PKCS#11 token may not sign", reason="token_unavailable")
            # CKM_ECDSA signs a digest. CKM_ECDSA_SHA256 is newer, and tokens that are in use do not all have it.
            raw = key.sign(hashlib.sha256(data).digest(), mechanism=Mechanism.ECDSA)
            return bytes(encode_ecdsa_signature(raw))

    def destroy(self, reference: Secret) -> None:
        """Delete both halves of a key. Does nothing if they are gone."""
        identifier = self._id(reference)
        with self._session(writing=True) as session:
            from pkcs11 import Attribute

            for found in list(session.get_objects({Attribute.ID: identifier})):
                found.destroy()

    def _id(self, reference: Secret) -> bytes:
        match = _URI.fullmatch(reference.reveal())
        if match is None:
            raise UsageError("the stored address of the key is not a PKCS#11 URI", reason="token_unavailable")
        if unquote(match[1]) != self.label:
            raise UsageError(
                f"the key is in the PKCS#11 token {clean_text(unquote(match[1]), 100)!r}, not in {self.label!r}",
                reason="token_unavailable",
                hint="set DOCKWARDEN_RECEIPT_PKCS11_TOKEN, or rotate the key: dockwarden receipt rotate-key",
            )
        return bytes.fromhex(match[2].replace("%", ""))

    @contextmanager
    def _session(self, *, writing: bool = False) -> Iterator[Session]:
        try:
            import pkcs11
        except ImportError:
            raise UsageError(
                "the library for PKCS#11 is not installed",
                reason="token_unavailable",
                hint="pip install 'dockwarden[pkcs11]'",
            ) from None
        with _TURN:
            try:
                token = pkcs11.lib(str(self.module)).get_token(token_label=self.label)
                with token.open(rw=writing, user_pin=self.pin.reveal() or None) as session:
                    yield session
            # Errors of the library name no value: neither the PIN nor a key.
            except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
                raise _unavailable(error, self) from None


def _percent(data: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in data)


def _unavailable(error: Exception, token: Token) -> RemoteError:
    import pkcs11

    hints = {
        pkcs11.NoSuchToken: f"no token has the label {token.label!r}: pkcs11-tool --module {token.module} -L",
        pkcs11.PinIncorrect: "check DOCKWARDEN_RECEIPT_PKCS11_PIN: tokens lock after a few wrong ones",
        pkcs11.PinLocked: "the token is locked; its security officer can unlock it",
        pkcs11.NoSuchKey: "the key is gone; sign with a new one: dockwarden receipt rotate-key --overlap 0",
    }
    hint = next((text for kind, text in hints.items() if isinstance(error, kind)), "see docs/receipts.md, Keys")
    what = type(error).__name__ if isinstance(error, pkcs11.PKCS11Error) else clean_text(str(error), 200)
    return RemoteError(
        f"the PKCS#11 token cannot be used: {what}", reason="token_unavailable", hint=hint, retryable=False
    )
