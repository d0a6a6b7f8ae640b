"""The two envelopes of a Notation signature, JWS and COSE, parsed as strictly as specified.

signature-specification.md, signature-envelope-jws.md, signature-envelope-cose.md. Both become one ``Envelope``.
``check_integrity`` verifies the signature with the algorithm that the key requires, never with the one that the
envelope claims (algorithm confusion).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.trust._pki import certificate_key, decode_base64, load_der_certificate
from scanner.trust.base import SignatureRefused

JWS, COSE = "application/jose+json", "application/cose"
MAX_ENVELOPE = 4 << 20
_PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
_PREFIX = "io.cncf.notary."
SCHEME, SIGNING_TIME, AUTHENTIC_TIME, EXPIRY = (
    _PREFIX + name for name in ("signingScheme", "signingTime", "authenticSigningTime", "expiry")
)
_TIMESTAMP = _PREFIX + "timestampSignature"
X509, AUTHORITY = "notary.x509", "notary.x509.signingAuthority"
# signature-specification.md, "Protected headers": those that a verifier must understand.
_CRITICAL = frozenset({SCHEME, AUTHENTIC_TIME, EXPIRY})
_MAX_CHAIN, _MAX_DEPTH = 10, 16
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
# COSE header labels (RFC 9052 3.1, RFC 9360)
_ALG, _CRIT, _CONTENT_TYPE, _X5CHAIN = 1, 2, 3, 33
_TAG_SIGN1, _TAG_EPOCH = 18, 1  # RFC 9052 (COSE_Sign1), RFC 8949 (epoch time)
# Tags that cbor2 would decode into other Python types (big numbers, regular expressions, references): all are refused.
_FOREIGN_TAGS = (0, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000)

Alg = str | int
# The algorithm for each key (signature-specification.md, algorithm selection): JWS name, COSE number, hash.
_ALGORITHMS: Mapping[tuple[str, int], tuple[str, int, hashes.HashAlgorithm]] = {
    ("rsa", 2048): ("PS256", -37, hashes.SHA256()),
    ("rsa", 3072): ("PS384", -38, hashes.SHA384()),
    ("rsa", 4096): ("PS512", -39, hashes.SHA512()),
    ("ec", 256): ("ES256", -7, hashes.SHA256()),
    ("ec", 384): ("ES384", -35, hashes.SHA384()),
    ("ec", 521): ("ES512", -36, hashes.SHA512()),
}


@dataclass(frozen=True)
class Envelope:
    """A parsed envelope; its signature is not verified yet.

    ``chain``: leaf first. ``scheme``: the signing scheme. Times that are absent are None. ``timestamp``: an RFC 3161
    token, empty if absent.
    """

    media_type: str
    alg: Alg
    signed_bytes: bytes  # what the signature covers
    payload: bytes
    signature: bytes
    chain: tuple[x509.Certificate, ...]
    scheme: str
    signing_time: datetime | None  # the signer's own claim
    authentic_time: datetime | None  # the signing authority's claim
    expiry: datetime | None
    timestamp: bytes


def parse_envelope(data: bytes, media_type: str) -> Envelope:
    """Parse the envelope in a layer of that media type. Raises SignatureRefused(reason="malformed")."""
    if media_type == JWS:
        return _parse_jws(data)
    if media_type == COSE:
        return _parse_cose(data)
    raise _malformed_envelope(f"a signature of media type {clean_text(media_type, 100)}")


def check_integrity(envelope: Envelope) -> None:
    """Verify the signature with the leaf's key and the algorithm that the key requires.

    Raises SignatureRefused: signature, certificate.
    """
    key = certificate_key(envelope.chain[0])
    kind = "rsa" if isinstance(key, rsa.RSAPublicKey) else "ec" if isinstance(key, ec.EllipticCurvePublicKey) else ""
    size = key.key_size if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) else 0
    if (kind, size) not in _ALGORITHMS:
        raise SignatureRefused("the leaf certificate's key has a type or size that must not sign", reason="certificate")
    jws, cose, algorithm = _ALGORITHMS[kind, size]
    # JWS names the algorithm by a string and COSE by a number. The other form is refused, as other implementations do.
    if envelope.alg != (jws if envelope.media_type == JWS else cose):
        raise SignatureRefused(f"alg is {clean_text(str(envelope.alg), 40)}, but the key requires {jws}")
    if not _verifies(key, envelope.signature, envelope.signed_bytes, algorithm):
        raise SignatureRefused("the signature does not verify with the leaf certificate's key")


def _verifies(key: object, signature: bytes, data: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
            key.verify(signature, data, pss, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            half = (key.key_size + 7) // 8
            if len(signature) != 2 * half:  # r and s, each of the curve's length (RFC 7518 3.4); not DER
                return False
            r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(algorithm))
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True


def _parse_jws(data: bytes) -> Envelope:
    """Parse flattened JSON (RFC 7515 section 7.2.2) with exactly its four members; no general or compact form."""
    document = load_untrusted_json(data, limit=MAX_ENVELOPE, error=SignatureRefused, reason="malformed")
    if not isinstance(document, dict) or set(document) != {"payload", "protected", "header", "signature"}:
        raise _malformed_envelope("a JWS must have exactly payload, protected, header and signature")
    protected_text, payload_text = document["protected"], document["payload"]
    payload = _base64url(payload_text, "payload")
    protected = load_untrusted_json(
        _base64url(protected_text, "protected"), limit=64 << 10, error=SignatureRefused, reason="malformed"
    )
    header, unprotected = _object(protected, "the protected header"), _object(document["header"], "the header")
    _check_apart(header, unprotected)
    alg = header.get("alg")
    if not isinstance(alg, str):
        raise _malformed_envelope("alg must be a text")
    times = {name: _rfc3339(header.get(name), name) for name in (SIGNING_TIME, AUTHENTIC_TIME, EXPIRY)}
    x5c = unprotected.get("x5c")
    if not isinstance(x5c, list) or not all(isinstance(item, str) for item in x5c):
        raise _malformed_envelope("x5c must be a list of certificates")
    return _envelope(
        media_type=JWS,
        alg=alg,
        critical=header.get("crit"),
        content_type=header.get("cty"),
        headers=header,
        times=times,
        signed_bytes=f"{protected_text}.{payload_text}".encode("ascii"),  # both are base64url by now
        payload=payload,
        signature=_base64url(document["signature"], "signature"),
        chain=[decode_base64(item, "a certificate") for item in x5c[: _MAX_CHAIN + 1]],
        timestamp=decode_base64(unprotected.get(_TIMESTAMP, ""), "the timestamp"),
    )


def _parse_cose(data: bytes) -> Envelope:
    """Parse a tagged COSE_Sign1 (RFC 9052 section 4.2) with nothing after it."""
    message = _cbor(data, "the envelope")
    if not isinstance(message, cbor2.CBORTag) or message.tag != _TAG_SIGN1:
        raise _malformed_envelope("not a tagged COSE_Sign1")
    parts = message.value
    if not isinstance(parts, list | tuple) or len(parts) != 4 or not isinstance(parts[1], Mapping):
        raise _malformed_envelope("a COSE_Sign1 has four parts")
    protected, unprotected, payload, signature = parts
    if not all(isinstance(item, bytes) for item in (protected, payload, signature)):
        raise _malformed_envelope("protected, payload and signature must be byte strings")
    header = _cbor(protected, "the protected header")
    if not isinstance(header, Mapping):
        raise _malformed_envelope("the protected header is not a map")
    for label in (*header, *unprotected):
        if type(label) not in (int, str):  # in Python true and 1.0 equal 1, the label of alg
            raise _malformed_envelope("a header's label is neither a whole number nor a text")
    _check_apart(header, unprotected)
    if type(header.get(_ALG)) is not int:
        raise _malformed_envelope("alg must be a whole number")
    times = {name: _epoch(header.get(name), name) for name in (SIGNING_TIME, AUTHENTIC_TIME, EXPIRY)}
    chain, timestamp = unprotected.get(_X5CHAIN), unprotected.get(_TIMESTAMP, b"")
    chain = [chain] if isinstance(chain, bytes) else chain
    if not isinstance(chain, list | tuple) or not all(isinstance(item, bytes) for item in (*chain, timestamp)):
        raise _malformed_envelope("x5chain must be a list of certificates")
    return _envelope(
        media_type=COSE,
        alg=header[_ALG],
        critical=header.get(_CRIT),
        content_type=header.get(_CONTENT_TYPE),
        headers=header,
        times=times,
        signed_bytes=cbor2.dumps(["Signature1", protected, b"", payload]),
        payload=payload,
        signature=signature,
        chain=list(chain[: _MAX_CHAIN + 1]),
        timestamp=timestamp,
    )


def _envelope(
    *,
    media_type: str,
    alg: Alg,
    critical: object,
    content_type: object,
    headers: Mapping[Any, object],
    times: Mapping[str, datetime | None],
    signed_bytes: bytes,
    payload: bytes,
    signature: bytes,
    chain: list[bytes],
    timestamp: bytes,
) -> Envelope:
    """Check what both forms must contain (signature-specification.md, signed attributes)."""
    if content_type != _PAYLOAD_TYPE:
        raise _malformed_envelope(f"the payload is of type {clean_text(str(content_type), 100)}")
    scheme = headers.get(SCHEME)
    if scheme not in (X509, AUTHORITY):
        raise _malformed_envelope(f"the signing scheme is {clean_text(str(scheme), 100)}")
    by_authority = scheme == AUTHORITY
    if times[SIGNING_TIME if not by_authority else AUTHENTIC_TIME] is None:
        raise _malformed_envelope("the time of signing is missing")
    if times[AUTHENTIC_TIME if not by_authority else SIGNING_TIME] is not None:
        raise _malformed_envelope("the time of signing belongs to the other signing scheme")
    _check_critical(critical, headers)
    if not 1 <= len(chain) <= _MAX_CHAIN:
        raise _malformed_envelope(f"a chain must have one to {_MAX_CHAIN} certificates")
    return Envelope(
        media_type=media_type,
        alg=alg,
        signed_bytes=signed_bytes,
        payload=payload,
        signature=signature,
        chain=tuple(load_der_certificate(item) for item in chain),
        scheme=str(scheme),
        signing_time=times[SIGNING_TIME],
        authentic_time=times[AUTHENTIC_TIME],
        expiry=times[EXPIRY],
        timestamp=timestamp,
    )


def _check_apart(protected: Mapping[Any, object], unprotected: Mapping[Any, object]) -> None:
    """No header may be both signed and unsigned (RFC 7515 section 4, RFC 9052 section 3): two parsers could take
    different values. ``crit`` must be signed.
    """
    if protected.keys() & unprotected.keys() or {"crit", _CRIT} & unprotected.keys():
        raise _malformed_envelope("a header is both signed and unsigned, or crit is unsigned")


def _check_critical(critical: object, headers: Mapping[Any, object]) -> None:
    """Check ``crit``: every header in it exists and is understood, and headers that must be critical are in it.

    A verification plug-in is announced by a critical header. We have none, so such a signature is refused.
    """
    if not isinstance(critical, list | tuple) or not all(type(name) in (int, str) for name in critical):
        raise _malformed_envelope("crit must be a list of header names")
    names = set(critical)
    if len(names) != len(critical) or not all(name in headers for name in names):
        raise _malformed_envelope("crit names a header twice, or a header that does not exist")
    unknown = names - _CRITICAL
    if unknown:
        raise _malformed_envelope(
            f"a critical header is not understood: {clean_text(', '.join(sorted(map(str, unknown))), 200)}"
        )
    must = {name for name in _CRITICAL if name in headers}
    if not must <= names:
        raise _malformed_envelope(f"{sorted(must - names)[0]} must be critical")


def _cbor(data: bytes, what: str) -> Any:
    stream = BytesIO(data)
    try:
        decoder = cbor2.CBORDecoder(
            stream,
            semantic_decoders={_TAG_EPOCH: _decode_epoch, **dict.fromkeys(_FOREIGN_TAGS, _decode_foreign)},
            max_depth=_MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
        value = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _malformed_envelope(f"{what} is not valid CBOR") from error
    if stream.tell() != len(data):
        raise _malformed_envelope(f"there is data after {what}")
    return value


@dataclass(frozen=True)
class _Epoch:
    """CBOR tag 1 (epoch time): the only form of time in a COSE envelope."""

    value: object


def _decode_epoch(value: Any, immutable: bool) -> _Epoch:
    return _Epoch(value)


def _decode_foreign(value: Any, immutable: bool) -> Any:
    raise ValueError("a tag that is not allowed in an envelope")


def _epoch(value: object, name: str) -> datetime | None:
    if value is None:
        return None
    seconds = value.value if isinstance(value, _Epoch) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 <= seconds < 253402300800:
        raise _malformed_envelope(f"{name} is not an epoch time")
    return datetime.fromtimestamp(seconds, UTC)


def _rfc3339(value: object, name: str) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise _malformed_envelope(f"{name} is not an RFC 3339 time")
    # fromisoformat takes six digits of a second at most; Go writes up to nine.
    head, dot, fraction = value.partition(".")
    if dot:
        digits = re.match(r"\d+", fraction)
        assert digits
        value = f"{head}.{digits[0][:6]:0<6}{fraction[digits.end() :]}"
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _malformed_envelope(f"{name} is not a time") from error


def _base64url(text: object, what: str) -> bytes:
    """Decode base64url without padding (RFC 7515 section 2), in its one canonical form: one envelope has one text."""
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        raise _malformed_envelope(f"{what} is not base64url")
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise _malformed_envelope(f"{what} is not base64url") from error
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != text:
        raise _malformed_envelope(f"{what} is not base64url in its canonical form")
    return found


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _malformed_envelope(f"{what} is not an object")
    return value


def _malformed_envelope(message: str) -> SignatureRefused:
    return SignatureRefused(message, reason="malformed")
