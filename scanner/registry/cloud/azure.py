"""Azure Container Registry: an access token of Microsoft Entra ID is exchanged for a refresh token of the registry.

https://azure.github.io/acr/AAD-OAuth.html. The registry's own token service then answers as any other: the refresh
token is an identity token for `Authenticator`. The access token comes from a client secret, or from the identity of
this machine: workload identity (AKS), the identity endpoint (App Service, Container Apps), a managed identity (IMDS).
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from dataclasses import dataclass

from scanner.config import Secret
from scanner.errors import RemoteError, UsageError
from scanner.model import cloud_registry
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
    own_addresses,
    secret_of,
)

_ENTRA, _METADATA, _IDENTITY = "Microsoft Entra ID", "the instance metadata service", "the identity endpoint"
# A token for registries only. One for management.azure.com would be accepted too, and would allow much more.
_RESOURCE = "https://containerregistry.azure.net"
_AUTHORITIES = {
    "io": "https://login.microsoftonline.com",
    "us": "https://login.microsoftonline.us",
    "cn": "https://login.chinacloudapi.cn",
}
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_REFRESH_SECONDS = 3 * 3600.0  # the documented life of a refresh token


@dataclass(frozen=True)
class Endpoints:
    authority: str
    exchange: str
    instance: str = "http://169.254.169.254"

    @classmethod
    def of(cls, host: str) -> Endpoints:
        """The endpoints that belong to a registry. Raises UsageError if it is none of Azure."""
        match = cloud_registry.HOSTS[cloud_registry.ACR].fullmatch(host)
        if match is None:
            raise UsageError(f"{host} is not a registry of Azure", field="credentials")
        return cls(_AUTHORITIES[match["zone"]], f"https://{host}/oauth2/exchange")


def token(access: CloudAccess, around: Surroundings, endpoints: Endpoints | None = None) -> Token:
    """Return a refresh token of the registry. Raises RemoteError, UsageError."""
    places = endpoints or Endpoints.of(access.host)
    granted, tenant = entra_token(access, around, places, _RESOURCE)
    form = {"grant_type": "access_token", "service": access.host, "access_token": granted.reveal()}
    if tenant:
        form["tenant"] = tenant
    who = f"{access.host}"
    with around.cloud(places.exchange, access.ca_file) as http:
        answer = ask(http, who, "POST", places.exchange, form=form)
    found = document(answer, who, "the token of Microsoft Entra ID", "the identity needs the role AcrPull")
    refresh = secret_of(found, "refresh_token", who)
    return Token(Credentials("", Secret(""), refresh), _seconds_left(refresh, who))


def entra_token(access: CloudAccess, around: Surroundings, places: Endpoints, resource: str) -> tuple[Secret, str]:
    """Return an access token for ``resource`` only, and the tenant if it is known. Raises as `token`."""
    if access.machine_role:
        return _from_machine(access, around, places, resource)
    secret = {"client_id": access.username, "client_secret": access.password.reveal()}
    hint = "check the registry's tenant, user name (client ID) and password (client secret)"
    return _from_entra(around, places, resource, access.tenant, secret, "the client secret", hint), access.tenant


def _from_entra(
    around: Surroundings, places: Endpoints, resource: str, tenant: str, proof: Mapping[str, str], what: str, hint: str
) -> Secret:
    """https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow"""
    url = f"{places.authority}/{tenant}/oauth2/v2.0/token"
    form = {"grant_type": "client_credentials", "scope": f"{resource}/.default", **proof}
    with around.cloud(url) as http:
        found = document(ask(http, _ENTRA, "POST", url, form=form), _ENTRA, what, hint)
    lifetime(found.get("expires_in"), _ENTRA)
    return secret_of(found, "access_token", _ENTRA)


def _from_machine(access: CloudAccess, around: Surroundings, places: Endpoints, resource: str) -> tuple[Secret, str]:
    """An access token of this machine's identity, and its tenant if it is known."""
    given = around.environment
    client = access.username
    if given.get("AZURE_FEDERATED_TOKEN_FILE") and given.get("AZURE_TENANT_ID"):
        tenant = given["AZURE_TENANT_ID"]
        if not cloud_registry.is_tenant(tenant):
            raise UsageError("AZURE_TENANT_ID is not the ID of a tenant", field="machine_role")
        proof = {
            "client_id": client or given.get("AZURE_CLIENT_ID", ""),
            "client_assertion_type": _JWT_BEARER,
            "client_assertion": around.secret_file("AZURE_FEDERATED_TOKEN_FILE").reveal(),
        }
        what, hint = "the token of AZURE_FEDERATED_TOKEN_FILE", "check the federated credential of the identity"
        return _from_entra(around, places, resource, tenant, proof, what, hint), tenant
    query = {"resource": resource, **({"client_id": client} if client else {})}
    if given.get("IDENTITY_ENDPOINT") and given.get("IDENTITY_HEADER"):
        url, who = given["IDENTITY_ENDPOINT"], _IDENTITY
        headers = {"X-IDENTITY-HEADER": given["IDENTITY_HEADER"]}
        query["api-version"] = "2019-08-01"
        extra = own_addresses(url, "IDENTITY_ENDPOINT")
    else:
        url, who = f"{places.instance}/metadata/identity/oauth2/token", _METADATA
        headers = {"Metadata": "true"}
        query["api-version"] = "2018-02-01"
        extra = frozenset()
    with around.machine(url, extra=extra) as http:
        try:
            answer = ask(http, who, "GET", url, params=query, headers=headers)
        except RemoteError as error:
            if error.reason == "registry_timeout":
                raise no_identity("Azure", "workload identity, identity endpoint, instance metadata") from None
            raise
    found = document(answer, who, "the request for a token", "assign a managed identity to this machine")
    return secret_of(found, "access_token", who), access.tenant


def _seconds_left(refresh: Secret, who: str) -> float:
    """The seconds until a refresh token ends, as it says itself. It is not verified: it limits our own cache only."""
    try:
        payload = refresh.reveal().split(".")[1]
        claims = load_untrusted_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), error=RemoteError)
        ends = claims.get("exp") if isinstance(claims, dict) else None
    except (IndexError, binascii.Error, ValueError, RemoteError):
        ends = None
    return _REFRESH_SECONDS if ends is None else min(_REFRESH_SECONDS, lifetime(ends, who, time.time()))
