"""Google Artifact Registry and Container Registry: an access token of one hour is the password.

A service account's key signs a request for it (RFC 7523;
https://developers.google.com/identity/protocols/oauth2/service-account#httprest), or the metadata server of this
machine gives it (https://cloud.google.com/compute/docs/access/authenticate-workloads), on GKE for workload identity.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from scanner.config import Secret
from scanner.errors import RemoteError, UsageError
from scanner.model.untrusted import load_untrusted_json
from scanner.registry.auth import Credentials
from scanner.registry.cloud.base import (
    CloudAccess,
    Surroundings,
    Token,
    ask,
    document,
    lifetime,
    no_identity,
    secret_of,
)

_GOOGLE, _METADATA = "Google's token service", "the metadata server"
_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 3600
_MAX_KEY = 16 << 10
_HINT = "paste the whole JSON file of a service account's key"


@dataclass(frozen=True)
class Endpoints:
    token: str = _TOKEN_URL
    metadata: str = "http://metadata.google.internal"


@dataclass(frozen=True)
class ServiceAccount:
    """The key of a service account."""

    email: str
    key_id: str
    key: RSAKey


def token(access: CloudAccess, around: Surroundings, endpoints: Endpoints | None = None) -> Token:
    """Return an access token. Raises RemoteError, UsageError."""
    places = endpoints or Endpoints()
    found, who = _from_machine(around, places) if access.machine_role else _from_key(access, around, places)
    secret = secret_of(found, "access_token", who)
    return Token(Credentials("oauth2accesstoken", secret), lifetime(found.get("expires_in"), who))


def _from_machine(around: Surroundings, places: Endpoints) -> tuple[Mapping[str, Any], str]:
    url = f"{places.metadata}/computeMetadata/v1/instance/service-accounts/default/token"
    with around.machine(url) as http:
        try:
            answer = ask(http, _METADATA, "GET", url, headers={"Metadata-Flavor": "Google"})
        except RemoteError as error:
            if error.reason in ("registry_timeout", "unknown_host"):
                raise no_identity("Google Cloud", "the metadata server") from None
            raise
    if answer.status == 404:
        raise no_identity("Google Cloud", "the metadata server: no service account is attached")
    # Without this header something else answered, for example a captive portal.
    if answer.headers.get("Metadata-Flavor") != "Google":
        raise RemoteError(f"what answered is not {_METADATA} of Google Cloud", retryable=False)
    hint = "attach a service account with the scope cloud-platform to this machine"
    return document(answer, _METADATA, "the request for a token", hint), _METADATA


def _from_key(access: CloudAccess, around: Surroundings, places: Endpoints) -> tuple[Mapping[str, Any], str]:
    account = read_key(access.password)
    now = int(time.time())
    # The audience is Google's own address: a key that names another one must not choose where its proof is valid.
    claims = {"iss": account.email, "scope": _SCOPE, "aud": _TOKEN_URL, "iat": now, "exp": now + _SECONDS}
    proof = jwt.encode({"alg": "RS256", "typ": "JWT", "kid": account.key_id}, claims, account.key)
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": proof}
    with around.cloud(places.token) as http:
        answer = ask(http, _GOOGLE, "POST", places.token, form=form)
    hint = "check that the key exists and is enabled; store a new one as the registry's password"
    return document(answer, _GOOGLE, "the service account's key", hint), _GOOGLE


def read_key(text: Secret) -> ServiceAccount:
    """Parse the JSON file of a service account's key. Raises UsageError(field="password") that quotes nothing of it."""
    try:
        found = load_untrusted_json(text.reveal().encode("utf-8", "replace"), limit=_MAX_KEY, error=RemoteError)
    except RemoteError:
        found = None
    if not isinstance(found, dict):
        raise _invalid("it is not JSON")
    if found.get("type") != "service_account":
        raise _invalid("its type is not service_account")
    if found.get("token_uri", _TOKEN_URL) != _TOKEN_URL:
        raise _invalid(f"its token_uri is not {_TOKEN_URL}")
    email, key_id, pem = (found.get(name) for name in ("client_email", "private_key_id", "private_key"))
    if not (isinstance(email, str) and isinstance(key_id, str) and isinstance(pem, str) and email and pem):
        raise _invalid("client_email, private_key_id or private_key is missing")
    try:
        key = RSAKey.import_key(pem)
        is_private = key.is_private
    except (JoseError, ValueError, TypeError):
        raise _invalid("its private_key is not an RSA key") from None
    if not is_private:
        raise _invalid("its private_key is not a private key")
    return ServiceAccount(email, key_id, key)


def _invalid(why: str) -> UsageError:
    return UsageError(f"not a service account's key: {why}", reason="invalid", hint=_HINT, field="password")
