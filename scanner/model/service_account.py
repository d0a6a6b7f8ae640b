"""The key of a service account of Google Cloud: the JSON file that Google gives out."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from scanner.errors import RemoteError, UsageError
from scanner.model.untrusted import load_untrusted_json

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)
_MAX_KEY = 16 << 10
_HINT = "paste the whole JSON file of a service account's key"


@dataclass(frozen=True)
class ServiceAccount:
    email: str
    key_id: str
    key: RSAKey = field(repr=False)


def read_key(text: str) -> ServiceAccount:
    """Parse the JSON file of a service account's key. Raises UsageError(field="password") that quotes nothing of it."""
    try:
        found = load_untrusted_json(text.encode("utf-8", "replace"), limit=_MAX_KEY, error=RemoteError)
    except RemoteError:
        found = None
    if not isinstance(found, dict):
        raise _invalid("it is not JSON")
    if found.get("type") != "service_account":
        raise _invalid("its type is not service_account")
    if found.get("token_uri", TOKEN_URL) != TOKEN_URL:
        raise _invalid(f"its token_uri is not {TOKEN_URL}")
    email, key_id, pem = (found.get(name) for name in ("client_email", "private_key_id", "private_key"))
    if not (isinstance(email, str) and isinstance(key_id, str) and isinstance(pem, str) and email and pem):
        raise _invalid("client_email, private_key_id or private_key is missing")
    try:
        key = RSAKey.import_key(pem)
        is_private = key.is_private
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError):
        raise _invalid("its private_key is not an RSA key") from None
    if not is_private:
        raise _invalid("its private_key is not a private key")
    return ServiceAccount(email, key_id, key)


def _invalid(why: str) -> UsageError:
    return UsageError(f"not a service account's key: {why}", reason="invalid", hint=_HINT, field="password")
