"""Google Artifact Registry and Container Registry: an access token of one hour is the password.

A service account's key signs a request for it (RFC 7523;
https://developers.google.com/identity/protocols/oauth2/service-account#httprest), or the metadata server of this
machine gives it (https://cloud.google.com/compute/docs/access/authenticate-workloads), on GKE for workload identity.
Elsewhere a token of this machine's own identity provider is exchanged for one (workload identity federation:
https://cloud.google.com/iam/docs/workload-identity-federation), by the file that GOOGLE_APPLICATION_CREDENTIALS names.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from joserfc import jwt

from scanner.config import Secret
from scanner.errors import RemoteError, UsageError
from scanner.files import read_whole
from scanner.model.service_account import TOKEN_URL, read_key
from scanner.model.untrusted import load_untrusted_json
from scanner.patterns import lazy
from scanner.registry.auth import Credentials
from scanner.registry.cloud import aws
from scanner.registry.cloud.base import (
    CloudAccess,
    Surroundings,
    Token,
    ask,
    document,
    lifetime,
    no_identity,
    own_addresses,
    require_success,
    secret_of,
)
from scanner.registry.cloud.sigv4 import Keys, signed_headers

_GOOGLE, _METADATA = "Google's token service", "the metadata server"
_STS, _IAM = "Google's security token service", "Google's IAM service"
_PROVIDER = "this machine's identity provider"
_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
_MAX_FILE = 32 << 10
_IMPERSONATION = lazy(
    r"https://iamcredentials\.googleapis\.com(/v1/projects/-/serviceAccounts/[a-z0-9.@_-]{1,200}:generateAccessToken)"
)
# The documented value; Google replaces no part of it, so the request must be signed for this address.
_CALLER = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Validity of the assertion that a token is asked for with: Google's maximum.
_SECONDS = 3600


@dataclass(frozen=True)
class Endpoints:
    token: str = TOKEN_URL
    metadata: str = "http://metadata.google.internal"
    sts: str = "https://sts.googleapis.com/v1/token"
    iam: str = "https://iamcredentials.googleapis.com"
    aws_instance: tuple[str, ...] = aws.INSTANCE
    aws_container: str = aws.CONTAINER
    aws_sts: str = ""  # empty: of this machine's region


def token(access: CloudAccess, around: Surroundings, endpoints: Endpoints | None = None) -> Token:
    """Return an access token. Raises RemoteError, UsageError."""
    places = endpoints or Endpoints()
    if access.machine_role and around.environment.get(_FILE):
        return _exchange_identity(around, places)
    found, who = _from_machine(around, places) if access.machine_role else _from_key(access, around, places)
    secret = secret_of(found, "access_token", who)
    return _token(secret, lifetime(found.get("expires_in"), who))


def _token(secret: Secret, seconds: float) -> Token:
    return Token(Credentials("oauth2accesstoken", secret), seconds)


def _exchange_identity(around: Surroundings, places: Endpoints) -> Token:
    """Exchange a token of this machine's own identity provider (RFC 8693).

    The file is the operator's, but it may have been copied from anywhere: its addresses of Google are compared, and its
    subject token is read from a file, or from an address that gives machines their identity.
    """
    config = load_untrusted_json(around.secret_file(_FILE).reveal().encode(), limit=_MAX_FILE, error=RemoteError)
    if not isinstance(config, dict) or config.get("type") != "external_account":
        raise _unusable("its type is not external_account")
    if config.get("token_url") != Endpoints.sts:
        raise _unusable(f"its token_url is not {Endpoints.sts}")
    audience, kind = config.get("audience"), config.get("subject_token_type")
    if not (isinstance(audience, str) and isinstance(kind, str) and audience and kind):
        raise _unusable("audience or subject_token_type is missing")
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": audience,
        "scope": _SCOPE,
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token": _subject_token(config.get("credential_source"), audience, around, places).reveal(),
        "subject_token_type": kind,
    }
    with around.cloud(places.sts) as http:
        answer = ask(http, _STS, "POST", places.sts, form=form)
    hint = "check the provider of the workload identity pool: its issuer, audience and attribute condition"
    found = document(answer, _STS, "the token of this machine's identity provider", hint)
    secret, seconds = secret_of(found, "access_token", _STS), lifetime(found.get("expires_in"), _STS)
    impersonated = config.get("service_account_impersonation_url")
    return (
        _token(secret, seconds) if impersonated is None else _impersonate_account(impersonated, secret, around, places)
    )


def _impersonate_account(url: object, secret: Secret, around: Surroundings, places: Endpoints) -> Token:
    """https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken"""
    match = _IMPERSONATION.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise _unusable(f"its service_account_impersonation_url is not one of {Endpoints.iam}")
    headers = {"Authorization": f"Bearer {secret.reveal()}"}
    with around.cloud(places.iam) as http:
        body = {"scope": [_SCOPE], "lifetime": f"{_SECONDS}s"}
        answer = ask(http, _IAM, "POST", f"{places.iam}{match[1]}", headers=headers, json=body)
    hint = "the identity needs the role Workload Identity User on the service account"
    found = document(answer, _IAM, "the request to act as the service account", hint)
    return _token(secret_of(found, "accessToken", _IAM), lifetime(found.get("expireTime"), _IAM, time.time()))


def _subject_token(source: object, audience: str, around: Surroundings, places: Endpoints) -> Secret:
    """The token of this machine's own identity provider: from a file, from an address of this machine, or of AWS."""
    given = source if isinstance(source, dict) else {}
    if "executable" in given:
        # A changed or copied file would run programs as the worker, which has the secrets of every registry. Google's
        # libraries refuse it too, unless a variable allows it.
        raise _unusable(
            "its credential_source is a program, and no program is run because a file names it",
            "let the program write its token to a file before it ends, and name that file: --credential-source-file",
        )
    if "environment_id" in given:
        return _aws_token(given, audience, around, places)
    path, url = given.get("file"), given.get("url")
    if isinstance(path, str) and path:
        data = read_whole(Path(path), _MAX_FILE, "the token file of credential_source:")
    elif isinstance(url, str) and url:
        headers = given.get("headers")
        sent = {str(name): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
        with around.machine(url, extra=own_addresses(url, _FILE)) as http:
            answer = ask(http, _PROVIDER, "GET", url, headers=sent)
        require_success(answer, _PROVIDER, "the request for a token", "check credential_source of the file")
        data = answer.body
    else:
        raise _unusable("its credential_source is neither a file nor a URL nor AWS")
    form = given.get("format")
    if isinstance(form, dict) and form.get("type") == "json":
        found = load_untrusted_json(data, limit=_MAX_FILE, error=RemoteError)
        name = str(form.get("subject_token_field_name"))
        return secret_of(found if isinstance(found, dict) else {}, name, _PROVIDER)
    return secret_of({"token": data.decode("ascii", "replace").strip()}, "token", _PROVIDER)


def _aws_token(source: Mapping[str, Any], audience: str, around: Surroundings, places: Endpoints) -> Secret:
    """A signed request of GetCallerIdentity, which Google sends to AWS to learn who signed it.

    https://cloud.google.com/iam/docs/workload-identity-federation-with-other-clouds#advanced_scenarios_2. The addresses
    in the file are not used: the keys and the region are those that the SDKs of AWS find on this machine.
    """
    if source["environment_id"] != "aws1":
        raise _unusable("its environment_id is not aws1")
    if source.get("regional_cred_verification_url", _CALLER) != _CALLER:
        raise _unusable(f"its regional_cred_verification_url is not {_CALLER}")
    region = aws.machine_region(around, places.aws_instance)
    given = around.environment
    if given.get("AWS_ACCESS_KEY_ID") and given.get("AWS_SECRET_ACCESS_KEY"):
        session = Secret(given.get("AWS_SESSION_TOKEN", ""))
        keys = Keys(given["AWS_ACCESS_KEY_ID"], Secret(given["AWS_SECRET_ACCESS_KEY"]), session)
    else:
        sts = places.aws_sts or f"https://sts.{region}.amazonaws.com"
        there = aws.Endpoints("", sts, region, places.aws_instance, places.aws_container)
        keys = aws.machine_keys(around, there)
    url = _CALLER.replace("{region}", region)
    # The signature covers the audience, so that no other pool accepts the request if it is stolen.
    target = {"x-goog-cloud-target-resource": audience}
    headers = signed_headers("POST", url, target, b"", keys, region, "sts", datetime.now(UTC))
    names = {"authorization": "Authorization"}
    listed = [{"key": names.get(name, name), "value": value} for name, value in sorted(headers.items())]
    return Secret(quote(json.dumps({"url": url, "method": "POST", "headers": listed}, separators=(",", ":"))))


def _unusable(why: str, hint: str = "") -> UsageError:
    hint = hint or "create it with: gcloud iam workload-identity-pools create-cred-config"
    return UsageError(f"the file of {_FILE} cannot be used: {why}", reason="invalid", hint=hint, field="machine_role")


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
