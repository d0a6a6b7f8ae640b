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

from scanner.errors import RemoteError
from scanner.model.service_account import TOKEN_URL, read_key
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
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 3600


@dataclass(frozen=True)
class Endpoints:
    token: str = TOKEN_URL
    metadata: str = "http://metadata.google.internal"


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
    account = read_key(access.password.reveal())
    now = int(time.time())
    # The audience is Google's own address: a key that names another one must not choose where its proof is valid.
    claims = {"iss": account.email, "scope": _SCOPE, "aud": TOKEN_URL, "iat": now, "exp": now + _SECONDS}
    proof = jwt.encode({"alg": "RS256", "typ": "JWT", "kid": account.key_id}, claims, account.key)
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": proof}
    with around.cloud(places.token) as http:
        answer = ask(http, _GOOGLE, "POST", places.token, form=form)
    hint = "check that the key exists and is enabled; store a new one as the registry's password"
    return document(answer, _GOOGLE, "the service account's key", hint), _GOOGLE
