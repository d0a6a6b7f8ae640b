"""Amazon ECR: an access key, or the role of this machine, becomes a password of 12 hours.

https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html. The role is searched as the
AWS SDKs do: web identity (EKS: IAM roles for service accounts), container (ECS, EKS Pod Identity), instance (IMDSv2).
Either can assume a role first, which may be in another account.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from scanner.config import Secret
from scanner.errors import RemoteError, UsageError
from scanner.model import cloud_registry
from scanner.outbound import Address, HttpClient
from scanner.patterns import lazy
from scanner.registry.auth import Credentials
from scanner.registry.cloud.base import (
    CloudAccess,
    Surroundings,
    Token,
    ask,
    document,
    is_token,
    lifetime,
    no_identity,
    own_addresses,
    require_success,
    secret_of,
)
from scanner.registry.cloud.sigv4 import Keys, signed_headers

_ECR, _STS, _METADATA = "Amazon ECR", "AWS STS", "the instance metadata service"
_CONTAINER = "the container credentials service"
_SESSION = "dockwarden"  # as CloudTrail shows it
# IAM: characters of a role's name.
_ROLE = lazy(r"[\w+=,.@-]{1,128}", re.ASCII)
_REGION = lazy(r"[a-z]{2,8}(-[a-z]{2,12}){1,3}-[0-9]{1,2}")
_HOPS = "allow IMDSv2, in a container with a hop limit of 2"

INSTANCE, CONTAINER = ("http://169.254.169.254", "http://[fd00:ec2::254]"), "http://169.254.170.2"

T = TypeVar("T")


@dataclass(frozen=True)
class Endpoints:
    """The addresses of one region's services, and those on this machine's own network."""

    ecr: str
    sts: str
    region: str
    instance: tuple[str, ...] = INSTANCE  # the metadata service, IPv4 and IPv6
    container: str = CONTAINER

    @classmethod
    def of(cls, host: str) -> Endpoints:
        """The endpoints that belong to a registry. Raises UsageError if it is none of Amazon ECR."""
        match = cloud_registry.HOSTS[cloud_registry.ECR].fullmatch(host)
        if match is None:
            raise UsageError(f"{host} is not a registry of Amazon ECR", field="credentials")
        region = match["region"] or match["region2"]
        china = match["china"] or ""
        sts = f"https://sts.{region}.amazonaws.com{china}"
        if match["region2"]:
            fips = match["fips2"] or ""
            return cls(f"https://ecr{fips}.{region}.api.aws", sts, region)
        if match["fips"]:
            return cls(f"https://ecr-fips.{region}.amazonaws.com{china}", sts, region)
        return cls(f"https://api.ecr.{region}.amazonaws.com{china}", sts, region)


def token(access: CloudAccess, around: Surroundings, endpoints: Endpoints | None = None) -> Token:
    """Return a password for the registry. Raises RemoteError, UsageError."""
    places = endpoints or Endpoints.of(access.host)
    keys = keys_of(access, around, places)
    if access.role_arn:
        what, hint = "the assumed role", "the role needs ecr:GetAuthorizationToken"
    elif access.machine_role:
        what, hint = "the role of this machine", "the role needs ecr:GetAuthorizationToken"
    else:
        what = "the access key"
        hint = "check the registry's user name (access key ID) and password; it needs ecr:GetAuthorizationToken"
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
    }
    body, url, now = b"{}", f"{places.ecr}/", datetime.now(UTC)
    sent = signed_headers("POST", url, headers, body, keys, places.region, "ecr", now)
    with around.cloud(url) as http:
        answer = document(ask(http, _ECR, "POST", url, headers=sent, content=body), _ECR, what, hint)
    data = answer.get("authorizationData")
    first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
    # The password of a role may end with the role's keys.
    seconds = min(lifetime(first.get("expiresAt"), _ECR, now.timestamp()), keys.seconds)
    return Token(_credentials(first), seconds)


def _credentials(data: Mapping[str, Any]) -> Credentials:
    """Decode the token: base64 of user:password."""
    encoded = secret_of(data, "authorizationToken", _ECR)
    try:
        username, colon, password = base64.b64decode(encoded.reveal(), validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        username = colon = password = ""
    if not colon or not is_token(username) or not is_token(password):
        raise RemoteError(f"the answer of {_ECR} has no usable authorizationToken", retryable=False)
    return Credentials(username, Secret(password))


def keys_of(access: CloudAccess, around: Surroundings, places: Endpoints) -> Keys:
    """Return the keys that sign requests: the stored ones, or those of this machine's role, or of the role that they
    assume. Raises as `token`.
    """
    keys = machine_keys(around, places) if access.machine_role else Keys(access.username, access.password)
    return _assume_role(access, keys, around, places) if access.role_arn else keys


def _assume_role(access: CloudAccess, keys: Keys, around: Surroundings, places: Endpoints) -> Keys:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html"""
    form = {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": access.role_arn,
        "RoleSessionName": _SESSION,
        # The external ID proves that we ask for the account that configured it (the confused deputy problem).
        **({"ExternalId": access.external_id} if access.external_id else {}),
    }
    body, url = urlencode(form).encode(), f"{places.sts}/"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    sent = signed_headers("POST", url, headers, body, keys, places.region, "sts", datetime.now(UTC))
    with around.cloud(url) as http:
        answer = ask(http, _STS, "POST", url, headers=sent, content=body)
    hint = "the key's policy must allow sts:AssumeRole, and the role's trust policy must name the key's account"
    require_success(answer, _STS, "the request to assume the role", f"{hint} and the external ID")
    assumed = _of_sts(answer.body)
    return replace(assumed, seconds=min(assumed.seconds, keys.seconds))


def machine_keys(around: Surroundings, places: Endpoints) -> Keys:
    """Return temporary keys of the role of this machine. Raises UsageError if it has none, RemoteError."""
    given = around.environment
    if given.get("AWS_WEB_IDENTITY_TOKEN_FILE") and given.get("AWS_ROLE_ARN"):
        return _web_identity(around, places)
    if given.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or given.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        return _container(around, places)
    return _at_instance(around, places.instance, _instance_keys)


def _web_identity(around: Surroundings, places: Endpoints) -> Keys:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html"""
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": around.environment["AWS_ROLE_ARN"],
        "RoleSessionName": _SESSION,
        "WebIdentityToken": around.secret_file("AWS_WEB_IDENTITY_TOKEN_FILE").reveal(),
    }
    url = f"{places.sts}/"
    with around.cloud(url) as http:
        answer = ask(http, _STS, "POST", url, form=form)
    what = "the web identity token of AWS_WEB_IDENTITY_TOKEN_FILE"
    require_success(answer, _STS, what, "check the trust policy of the role in AWS_ROLE_ARN")
    return _of_sts(answer.body)


def _of_sts(xml: bytes) -> Keys:
    found = {name: _element(xml, name) for name in ("AccessKeyId", "SecretAccessKey", "Expiration")}
    return _keys({**found, "Token": _element(xml, "SessionToken")}, _STS)


def _element(xml: bytes, name: str) -> str:
    """The text of an element. The values have no entities, so no XML parser, with its attacks, is needed."""
    found = re.search(rf"<{name}>([A-Za-z0-9+/=:.-]{{1,16384}})</{name}>".encode(), xml)
    return found[1].decode() if found else ""


def _container(around: Surroundings, places: Endpoints) -> Keys:
    """https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html"""
    given = around.environment
    path, extra = given.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ""), frozenset[Address]()
    if path:
        if not path.startswith("/"):  # it would continue the host name
            raise UsageError("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI must begin with /", field="machine_role")
        url = f"{places.container}{path}"
    else:
        url = given["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        extra = own_addresses(url, "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    authorization = around.secret_file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") or Secret(
        given.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    )
    headers = {"Authorization": authorization.reveal()} if authorization else {}
    with around.machine(url, extra=extra) as http:
        answer = ask(http, _CONTAINER, "GET", url, headers=headers)
    return _keys(
        document(answer, _CONTAINER, "the request for the role's keys", "does the task have a role?"), _CONTAINER
    )


def machine_region(around: Surroundings, instance: Iterable[str]) -> str:
    """Return the region of this machine: of its environment, as the SDKs do, or of the instance's metadata.

    ``instance``: addresses of the metadata service. Raises RemoteError.
    """
    given = around.environment
    region = given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or _at_instance(around, instance, _region)
    if not _REGION.fullmatch(region):
        raise RemoteError(f"the region of this machine is not one of AWS: {region[:40]!r}", retryable=False)
    return region


def _region(http: HttpClient, base: str, headers: Mapping[str, str]) -> str:
    answer = ask(http, _METADATA, "GET", f"{base}/latest/meta-data/placement/region", headers=headers)
    require_success(answer, _METADATA, "the request for the region", _HOPS)
    return answer.body.decode("ascii", "replace").strip()


def _at_instance(
    around: Surroundings, instance: Iterable[str], read: Callable[[HttpClient, str, Mapping[str, str]], T]
) -> T:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html, IMDSv2 only."""
    for base in instance:
        with ExitStack() as opened:
            http = opened.enter_context(around.machine(base))
            try:
                answer = ask(
                    http,
                    _METADATA,
                    "PUT",
                    f"{base}/latest/api/token",
                    headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
                )
            except RemoteError as error:
                if error.reason == "registry_timeout":
                    continue  # no such service here, or only by the other version of IP
                raise
            text = answer.body.decode("ascii", "replace").strip() if answer.status == 200 else ""
            if not is_token(text):
                raise RemoteError(f"{_METADATA} gave no session token", hint=_HOPS, retryable=False)
            return read(http, base, {"X-aws-ec2-metadata-token": text})
    raise no_identity("AWS", f"web identity, container credentials, instance metadata ({_HOPS})")


def _instance_keys(http: HttpClient, base: str, headers: Mapping[str, str]) -> Keys:
    path = f"{base}/latest/meta-data/iam/security-credentials/"
    answer = ask(http, _METADATA, "GET", path, headers=headers)
    if answer.status == 404:
        raise no_identity("AWS", "instance metadata: no role is attached to this instance")
    require_success(answer, _METADATA, "the request for the role's name", _HOPS)
    role = answer.body.decode("ascii", "replace").strip()
    if not _ROLE.fullmatch(role):
        raise RemoteError(f"{_METADATA} named no role", retryable=False)
    answer = ask(http, _METADATA, "GET", path + quote(role), headers=headers)
    return _keys(document(answer, _METADATA, "the request for the role's keys", _HOPS), _METADATA)


def _keys(found: Mapping[str, Any], who: str) -> Keys:
    now = datetime.now(UTC).timestamp()
    return Keys(
        secret_of(found, "AccessKeyId", who).reveal(),
        secret_of(found, "SecretAccessKey", who),
        secret_of(found, "Token", who),
        lifetime(found.get("Expiration"), who, now),
    )
