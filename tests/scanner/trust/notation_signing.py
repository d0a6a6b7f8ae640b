"""Signing as Notation does: JWS and COSE envelopes over a payload, with any header and certificate chain."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from scanner.model.reference import Descriptor
from tests.scanner.trust.certificates import ACME, AUTHORITY, LEAF, PrivateKey, b64, certify, der, ec_key
from tests.scanner.trust.trees import NOW, Files

ARTIFACT = "application/vnd.cncf.notary.signature"
PAYLOAD = "application/vnd.cncf.notary.payload.v1+json"
JWS, COSE = "application/jose+json", "application/cose"
SCHEME, TIME, AUTHENTIC, EXPIRY, STAMP = (
    f"io.cncf.notary.{name}"
    for name in ("signingScheme", "signingTime", "authenticSigningTime", "expiry", "timestampSignature")
)
ALGORITHMS = {
    ("ec", 256): ("ES256", -7, hashes.SHA256()),
    ("ec", 384): ("ES384", -35, hashes.SHA384()),
    ("ec", 521): ("ES512", -36, hashes.SHA512()),
    ("rsa", 2048): ("PS256", -37, hashes.SHA256()),
    ("rsa", 3072): ("PS384", -38, hashes.SHA384()),
    ("rsa", 4096): ("PS512", -39, hashes.SHA512()),
}
ABSENT = object()  # a member that is to be left out


@cache
def authority(
    name: str, extensions: tuple[tuple[x509.ExtensionType, bool], ...], issuer: x509.Certificate | None, by: PrivateKey
) -> x509.Certificate:
    """The same certificate for the same question: a trust store holds it."""
    key = ec_key(name) if issuer else by
    return certify({"C": "US", "O": "ACME", "CN": name}, key, extensions, (issuer, by) if issuer else None)


@dataclass
class Chain:
    """A root, an authority below it and a leaf; each with what the test wants of it.

    ``certificates``: as in the envelope, leaf first.
    """

    key: PrivateKey = field(default_factory=lambda: ec_key("leaf"))
    subject: Mapping[str, str] = field(default_factory=lambda: ACME)
    leaf: Sequence[tuple[x509.ExtensionType, bool]] = LEAF
    between: Sequence[tuple[x509.ExtensionType, bool]] = AUTHORITY
    root: Sequence[tuple[x509.ExtensionType, bool]] = AUTHORITY
    leaf_times: Mapping[str, datetime] = field(default_factory=dict)
    leaf_algorithm: hashes.HashAlgorithm | None = None
    root_key: PrivateKey = field(default_factory=lambda: ec_key("root"))

    def __post_init__(self) -> None:
        top = authority("root", tuple(self.root), None, self.root_key)
        middle = authority("between", tuple(self.between), top, self.root_key)
        leaf = certify(
            self.subject,
            self.key,
            self.leaf,
            (middle, ec_key("between")),
            algorithm=self.leaf_algorithm,
            **self.leaf_times,
        )
        self.top = top
        self.certificates = [leaf, middle, top]


def target(image: Descriptor, **changed: Any) -> bytes:
    artifact = {"mediaType": image.media_type, "digest": image.digest, "size": image.size, **changed}
    return json.dumps({"targetArtifact": {k: v for k, v in artifact.items() if v is not ABSENT}}).encode()


def raw_sign(key: PrivateKey, data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), algorithm)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(algorithm)))
    half = (key.key_size + 7) // 8
    return r.to_bytes(half) + s.to_bytes(half)


def _kind(key: PrivateKey) -> tuple[str, int]:
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return ("rsa" if isinstance(key, rsa.RSAPrivateKey) else "ec"), key.key_size


def url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jws(
    body: bytes,
    chain: Chain,
    header: Mapping[str, Any] | None = None,
    certificates: Sequence[x509.Certificate] | None = None,
    timestamp: Any = None,
    signature: bytes | None = None,
    **members: Any,
) -> bytes:
    """``header`` changes members of the protected header, ``members`` those of the envelope."""
    name, _, algorithm = ALGORITHMS.get(_kind(chain.key), ALGORITHMS["ec", 256])
    times = {TIME: "2026-11-23T07:00:00Z"}
    protected = {"alg": name, "cty": PAYLOAD, "crit": [SCHEME], SCHEME: "notary.x509", **times, **(header or {})}
    first = url(json.dumps({k: v for k, v in protected.items() if v is not ABSENT}).encode())
    second = url(body)
    made = raw_sign(chain.key, f"{first}.{second}".encode(), algorithm) if signature is None else signature
    unprotected: dict[str, Any] = {
        "x5c": [b64(der(c)) for c in (chain.certificates if certificates is None else certificates)]
    }
    if timestamp is not None:
        unprotected[STAMP] = b64(timestamp(made))
    envelope = {"payload": second, "protected": first, "header": unprotected, "signature": url(made), **members}
    return json.dumps({k: v for k, v in envelope.items() if v is not ABSENT}).encode()


def cose(
    payload: bytes,
    chain: Chain,
    header: Mapping[Any, Any] | None = None,
    certificates: Sequence[x509.Certificate] | None = None,
    timestamp: Any = None,
    tag: int | None = 18,
    protected: bytes | None = None,
) -> bytes:
    _, number, algorithm = ALGORITHMS.get(_kind(chain.key), ALGORITHMS["ec", 256])
    headers = {1: number, 2: [SCHEME], 3: PAYLOAD, SCHEME: "notary.x509", TIME: epoch(NOW), **(header or {})}
    first = protected or cbor2.dumps({k: v for k, v in headers.items() if v is not ABSENT})
    made = raw_sign(chain.key, cbor2.dumps(["Signature1", first, b"", payload]), algorithm)
    unprotected: dict[Any, Any] = {33: [der(c) for c in (chain.certificates if certificates is None else certificates)]}
    if timestamp is not None:
        unprotected[STAMP] = timestamp(made)
    message = [first, unprotected, payload, made]
    return cbor2.dumps(cbor2.CBORTag(tag, message) if tag is not None else message)


def epoch(moment: datetime) -> cbor2.CBORTag:
    return cbor2.CBORTag(1, int(moment.astimezone(UTC).timestamp()))


def put_envelope(files: Files, image: Descriptor, data: bytes, media_type: str = JWS, **other: Any) -> None:
    files.put_referrer(image, ARTIFACT, media_type, data, **other)
