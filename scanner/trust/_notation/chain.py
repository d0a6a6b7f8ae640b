"""The certificate chain inside an envelope (signature-specification.md, certificate requirements): its form and its
subject. Whether it is trusted is a separate question: ``check_authenticity``.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scanner.model.untrusted import clean_text
from scanner.trust._notation.policy import Attributes
from scanner.trust._path import is_limited_to_others, refuse_constrained, refuse_unknown_critical
from scanner.trust._pki import certificate_key, extension, is_authority, issued_by
from scanner.trust.base import SignatureRefused

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_NOT_FOR_CODE = {
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
    ExtendedKeyUsageOID.TIME_STAMPING,
    ExtendedKeyUsageOID.OCSP_SIGNING,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}
_NAMES = {
    NameOID.COUNTRY_NAME: "C",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STREET_ADDRESS: "STREET",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.COMMON_NAME: "CN",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.USER_ID: "UID",
    NameOID.SERIAL_NUMBER: "SERIALNUMBER",
    NameOID.POSTAL_CODE: "POSTALCODE",
}
_MIN_RSA, _MIN_EC = 2048, 256  # bits: signature-specification.md, "Algorithm selection"


def check_chain(chain: Sequence[x509.Certificate]) -> None:
    """Check the chain: ordered from the leaf to a self-signed root, with no other certificate, each fit for its place.

    Raises SignatureRefused(reason="certificate"). Times are not checked here: the policy decides which time counts.
    """
    refuse_unknown_critical(chain)
    for certificate, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        if not issued_by(certificate, issuer):
            last = certificate is issuer
            raise _refused_chain(
                "the chain does not end in a self-signed root"
                if last
                else "a certificate of the chain was not issued by the next one"
            )
    for certificate in chain:
        _check_strength(certificate)
    _check_leaf(chain[0])
    for below, certificate in enumerate(chain[1:]):
        _check_authority(certificate, below)
    refuse_constrained(chain)


def _check_strength(certificate: x509.Certificate) -> None:
    if not isinstance(certificate.signature_hash_algorithm, _HASHES):
        raise _refused_chain("a certificate is signed with something other than SHA-256, SHA-384 or SHA-512")
    key = certificate_key(certificate)
    strong = (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= _MIN_EC
    )
    if not strong:
        raise _refused_chain("a certificate's key is too weak or of another kind than RSA or EC")


def _check_leaf(leaf: x509.Certificate) -> None:
    constraints, usage = extension(leaf, x509.BasicConstraints), _key_usage(leaf)
    if constraints is not None and constraints.ca:
        raise _refused_chain("the leaf is an authority's certificate")
    others = (
        usage.content_commitment,
        usage.key_encipherment,
        usage.data_encipherment,
        usage.key_agreement,
        usage.key_cert_sign,
        usage.crl_sign,
    )
    if not usage.digital_signature or any(others):
        raise _refused_chain("the leaf's key usage must be digitalSignature alone")
    purposes = extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and (_NOT_FOR_CODE & set(purposes) or ExtendedKeyUsageOID.CODE_SIGNING not in purposes):
        raise _refused_chain("the leaf must be for code signing only")


def _check_authority(certificate: x509.Certificate, below: int) -> None:
    constraints = [item for item in certificate.extensions if item.oid == x509.BasicConstraints.oid]
    if not constraints or not constraints[0].critical or not is_authority(certificate, below):
        raise _refused_chain("an issuer in the chain is not a certificate authority, or not allowed at this depth")
    if not _key_usage(certificate).key_cert_sign:
        raise _refused_chain("an issuer in the chain may not sign certificates")
    if is_limited_to_others(certificate, ExtendedKeyUsageOID.CODE_SIGNING):
        raise _refused_chain("an issuer in the chain may not certify signers of code")


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage:
    for item in certificate.extensions:
        if isinstance(item.value, x509.KeyUsage) and item.critical:
            return item.value
    raise _refused_chain("a certificate has no critical key usage")


def check_authenticity(chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate]) -> None:
    """Check that a certificate of the chain is in a trust store. Raises SignatureRefused(reason="certificate")."""
    if not trusted:
        raise _refused_chain("the trust policy names no trust store of the required type with a certificate")
    if not any(certificate in trusted for certificate in chain):
        raise _refused_chain("no certificate of the chain is in the trust policy's stores")


def check_identity(leaf: x509.Certificate, identities: Sequence[Attributes] | None) -> None:
    """Check that the leaf's subject has every attribute of one identity. Raises SignatureRefused(reason="identity")."""
    if identities is None:
        return
    subject = attributes(leaf.subject)
    if not any(identity.items() <= subject.items() for identity in identities):
        raise SignatureRefused(
            f"signed by {clean_text(leaf.subject.rfc4514_string(), 300)}, which is not a trusted identity",
            reason="identity",
        )


def attributes(name: x509.Name) -> Attributes:
    """The attributes by their short names.

    One that occurs twice is left out: verifiers could differ in which one counts.
    """
    found: dict[str, list[str]] = {}
    for item in name:
        value = item.value if isinstance(item.value, str) else item.value.hex()
        found.setdefault(_NAMES.get(item.oid, item.oid.dotted_string), []).append(value)
    return {key: values[0] for key, values in found.items() if len(values) == 1}


def _refused_chain(message: str) -> SignatureRefused:
    return SignatureRefused(message, reason="certificate")
