"""Keys and certificates as the schemes need them: parsed strictly, identified by the digest of the public key,
verified at a given time.

No network and no clock: the caller passes the time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from scanner.model.pem import CERTIFICATE, PUBLIC_KEY, pem_blocks
from scanner.trust.base import SignatureRefused

Kind = TypeVar("Kind", bound=x509.ExtensionType)
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_ECDSA_HASHES: Mapping[str, tuple[hashes.HashAlgorithm, ...]] = {
    "secp256r1": (hashes.SHA256(),),
    "secp384r1": (hashes.SHA256(), hashes.SHA384()),
    "secp521r1": (hashes.SHA256(), hashes.SHA512()),
}
# Exceptions of the library for malformed certificates; TypeError for a name whose value is a BIT STRING.
_UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
# Bits (NIST SP 800-57: 112 bits of security).
_MIN_RSA = 2048


def decode_base64(text: object, what: str) -> bytes:
    """Decode standard, padded base64. Raises SignatureRefused(reason="malformed")."""
    if not isinstance(text, str):
        raise SignatureRefused(f"{what} is not a base64 text", reason="malformed")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise SignatureRefused(f"{what} is not base64", reason="malformed") from error


def load_public_key(pem: str | bytes) -> PublicKey:
    """Load a PEM public key of a type that signs images: ECDSA P-256/384/521, RSA from 2048 bits, Ed25519.

    Raises ValueError with a message for users.
    """
    text = pem if isinstance(pem, str) else pem.decode("utf-8", "replace")
    # A second key in the file would be ignored by the library, and its owner would believe that it counts.
    block, *others = pem_blocks(text, PUBLIC_KEY, "a PEM public key")
    if others:
        raise ValueError("several keys, but exactly one is needed")
    try:
        key = serialization.load_pem_public_key(block.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("not a PEM public key (-----BEGIN PUBLIC KEY-----)") from error
    return usable(key)


def public_key_pem(key: PublicKey) -> str:
    """Return the key as PEM, encoded again: other text around it is not kept."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def certificates_pem(certificates: Sequence[x509.Certificate]) -> str:
    """Return the certificates as PEM, encoded again."""
    return "".join(found.public_bytes(serialization.Encoding.PEM).decode() for found in certificates)


def usable(key: object) -> PublicKey:
    """Return ``key`` if its type and size are strong enough. Raises ValueError."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _ECDSA_HASHES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise ValueError("not a key of a usable kind: ECDSA P-256, P-384 or P-521, RSA from 2048 bits, or Ed25519")


def key_id(key: PublicKey) -> str:
    """Hex SHA-256 of the key's SubjectPublicKeyInfo. Rekor calls it log id; we call it keyid."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def certificate_key(certificate: x509.Certificate) -> PublicKey:
    """The certificate's key. Raises SignatureRefused(reason="certificate")."""
    try:
        return usable(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureRefused(f"the certificate's key is {error}", reason="certificate") from error


def load_certificates(pem: str | bytes) -> tuple[x509.Certificate, ...]:
    """Load every certificate of a PEM text; at least one. Raises ValueError with a message for users."""
    text = pem if isinstance(pem, str) else pem.decode("utf-8", "replace")
    data = "".join(pem_blocks(text, CERTIFICATE, "PEM certificates")).encode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = tuple(x509.load_pem_x509_certificates(data))
            for certificate in found:
                _read_through(certificate)
            return found
    except _UNREADABLE as error:
        raise ValueError("not PEM certificates (-----BEGIN CERTIFICATE-----)") from error


def load_der_certificate(data: bytes) -> x509.Certificate:
    """Load one DER certificate and check that all of it can be parsed. Raises SignatureRefused(reason="malformed")."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(data)
            _read_through(certificate)
            return certificate
    except _UNREADABLE as error:
        raise SignatureRefused("a certificate cannot be read", reason="malformed") from error


def _read_through(certificate: x509.Certificate) -> None:
    """Access every field once: the library parses lazily, and would raise for malformed ones later, in the middle of a
    verification.
    """
    for name in (certificate.subject, certificate.issuer):
        name.rfc4514_string()
    for item in certificate.extensions:
        if isinstance(item.value, x509.SubjectAlternativeName | x509.IssuerAlternativeName):
            for other in item.value:
                if isinstance(other, x509.DirectoryName):
                    other.value.rfc4514_string()
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    _ = certificate.serial_number, certificate.signature_hash_algorithm


def verify_signature(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """True if the signature verifies: ECDSA in DER, RSA PKCS#1 v1.5 with SHA-256, or Ed25519.

    cosign signs with SHA-256 for every curve, and since 2.5 also with the curve's own hash (SHA-384 for P-384, SHA-512
    for P-521). The signature does not say which, so both are tried. Neither is weak, and the key is the same.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        return any(_ecdsa_verifies(key, signature, message, chosen) for chosen in _ECDSA_HASHES[key.curve.name])
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _ecdsa_verifies(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, chosen: hashes.HashAlgorithm
) -> bool:
    try:
        key.verify(signature, message, ec.ECDSA(chosen))
    except (InvalidSignature, ValueError):
        return False
    return True


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """Hex SHA-256 of the certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def valid_at(certificate: x509.Certificate, at: datetime) -> bool:
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """True if the key of ``issuer`` signed ``certificate`` and the names match.

    SHA-1 and MD5 signatures do not count.
    """
    algorithm = certificate.signature_hash_algorithm
    # Collisions for both are practical (SHA-1: shattered.io; MD5: the rogue CA certificate of 2008).
    if isinstance(algorithm, hashes.SHA1 | hashes.MD5):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def is_authority(certificate: x509.Certificate, below: int) -> bool:
    """True if the certificate may issue, with ``below`` further authorities between it and the leaf (RFC 5280 sections
    4.2.1.9 and 4.2.1.3).
    """
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    return (
        constraints is not None
        and constraints.ca
        and (constraints.path_length is None or constraints.path_length >= below)
        and (usage is None or usage.key_cert_sign)
    )


def extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    """Return the value of an extension, or None if the certificate has none."""
    found = certificate.extensions
    try:
        return found.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
