"""AWS KMS: https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html and API_GetPublicKey.html.

The credentials are an access key of the environment, or the role of this machine, as for a registry of Amazon ECR.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from scanner.config import Secret
from scanner.errors import ScannerError
from scanner.outbound import HttpClient
from scanner.patterns import lazy
from scanner.registry.cloud import aws
from scanner.registry.cloud.base import Surroundings, ask
from scanner.registry.cloud.sigv4 import Keys, signed_headers
from scanner.trust._kms.base import (
    KmsKey,
    credentials_error,
    decode_base64,
    public_pem,
    read_answer,
    reference_error,
    unusable_answer,
)

FORM = "awskms:///arn:aws:kms:REGION:ACCOUNT:key/ID, awskms:///ID or awskms:///alias/NAME"
_WHO = "AWS KMS"
_REFERENCE = lazy(
    r"awskms://(?P<host>[a-z0-9][a-z0-9.-]{0,252}(?::[0-9]{1,5})?)?/(?P<id>"
    r"(?:arn:aws[a-z-]{0,20}:kms:(?P<region>[a-z]{2,8}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}):[0-9]{12}:)?"
    r"(?:(?:key/)?(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|alias/[A-Za-z0-9/_-]{1,250}))"
)


@dataclass(frozen=True)
class AwsKey:
    """See `KeyService`. ``endpoint``, ``sts``, ``instance``: empty means those of AWS."""

    reference: str
    around: Surroundings
    endpoint: str = ""
    sts: str = ""
    instance: tuple[str, ...] = field(default=aws.INSTANCE)

    def fetch(self) -> KmsKey:
        with self._open() as call:
            found = call("GetPublicKey", {}, "kms:GetPublicKey on this key")
        if found.get("KeyUsage") not in (None, "SIGN_VERIFY"):
            raise unusable_answer(_WHO, "the key is not for signing")
        arn, key = str(found.get("KeyId")), decode_base64(found.get("PublicKey"), _WHO, "it")
        match = _REFERENCE.fullmatch(self.reference)
        # An alias can be led to another key at any time. The ARN of the key cannot.
        address = f"awskms://{(match and match['host']) or ''}/{arn}"
        resolved = _REFERENCE.fullmatch(address)
        if resolved is None or ":key/" not in arn:
            raise unusable_answer(_WHO, "it does not name the key")
        return KmsKey(address, public_pem(key, _WHO))

    def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        with self._open() as call:
            return [self._signature(call, digest) for digest in digests]

    def _signature(self, call: _Call, digest: bytes) -> bytes:
        message = base64.b64encode(digest).decode()
        wanted = {"Message": message, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
        return decode_base64(call("Sign", wanted, "kms:Sign on this key").get("Signature"), _WHO, "it")

    def _open(self) -> _Call:
        match = _REFERENCE.fullmatch(self.reference)
        if match is None:
            raise reference_error(self.reference, FORM)
        given, host = self.around.environment, match["host"]
        try:
            region = match["region"] or aws.machine_region(self.around, self.instance)
            keys = self._keys(region)
        except ScannerError as error:
            hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role; and AWS_REGION"
            raise credentials_error(error, _WHO, hint) from None
        default = given.get("AWS_ENDPOINT_URL_KMS") if not host else f"https://{host}"
        # Without the slash that people write: the path is signed.
        url = (self.endpoint or default or f"https://kms.{region}.amazonaws.com{_china(region)}").rstrip("/")
        return _Call(self.around.cloud(url), f"{url}/", keys, region, match["id"])

    def _keys(self, region: str) -> Keys:
        given = self.around.environment
        if given.get("AWS_ACCESS_KEY_ID") and given.get("AWS_SECRET_ACCESS_KEY"):
            secret, session = Secret(given["AWS_SECRET_ACCESS_KEY"]), Secret(given.get("AWS_SESSION_TOKEN", ""))
            return Keys(given["AWS_ACCESS_KEY_ID"], secret, session)
        sts = self.sts or f"https://sts.{region}.amazonaws.com{_china(region)}"
        return aws.machine_keys(self.around, aws.Endpoints("", sts, region, self.instance))


@dataclass(frozen=True)
class _Call:
    """Requests about one key with one set of credentials."""

    http: HttpClient
    url: str
    keys: Keys
    region: str
    key: str

    def __enter__(self) -> _Call:
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()

    def __call__(self, action: str, members: Mapping[str, Any], permission: str) -> Mapping[str, Any]:
        body = orjson.dumps({"KeyId": self.key, **members})
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"TrentService.{action}"}
        sent = signed_headers("POST", self.url, headers, body, self.keys, self.region, "kms", datetime.now(UTC))
        return read_answer(ask(self.http, _WHO, "POST", self.url, headers=sent, content=body), _WHO, permission)


def _china(region: str) -> str:
    return ".cn" if region.startswith("cn-") else ""
