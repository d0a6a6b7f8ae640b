"""Keyless certificates, valid for ten minutes: who signed, which issuer confirmed it, and whether the signature was
made while the certificate was valid.

Extensions: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.certificate_transparency import LogEntryType, SignedCertificateTimestamp
from cryptography.x509.oid import ExtendedKeyUsageOID

from scanner.model.untrusted import clean_text
from scanner.trust._cosign.authorities import Authority, Log
from scanner.trust._cosign.identity import Identity
from scanner.trust._path import build_path
from scanner.trust._pki import certificate_key, extension, key_id, verify_signature
from scanner.trust.base import SignatureRefused

_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_OTHER_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7")


@dataclass(frozen=True)
class KeylessSigner:
    """A keyless signer: the certificate's subject, and the identity provider that confirmed it."""

    subject: str
    issuer: str


def check_certificate(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    authorities: Sequence[Authority],
    times: Sequence[datetime],
) -> tuple[x509.Certificate, ...]:
    """Build a chain to a certificate authority, valid at every one of ``times``, and check the code-signing usage.

    ``times``: when the signature was made, by log or timestamp. The present time is irrelevant, because the certificate
    has usually expired by now. Raises SignatureRefused(reason="certificate").
    """
    if not times:
        raise SignatureRefused(
            "there is no proof of when the signature was made: no log entry and no timestamp", reason="certificate"
        )
    usage, constraints = extension(leaf, x509.ExtendedKeyUsage), extension(leaf, x509.BasicConstraints)
    if usage is None or ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise SignatureRefused("the certificate is not for code signing", reason="certificate")
    if constraints is not None and constraints.ca:
        raise SignatureRefused("the certificate is an authority's, which must not sign images", reason="certificate")
    paths = [_path(leaf, others, authorities, time) for time in times]
    return paths[0]


def _path(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], authorities: Sequence[Authority], at: datetime
) -> tuple[x509.Certificate, ...]:
    """Build a chain to an authority that was trusted at the time ``at``."""
    then = [certificate for one in authorities if one.period.holds(at) for certificate in one.certificates]
    if authorities and not then:
        raise SignatureRefused(f"no certificate authority was trusted on {at:%Y-%m-%d}", reason="certificate")
    return build_path(leaf, others, then, at, ExtendedKeyUsageOID.CODE_SIGNING)


def check_sct(path: Sequence[x509.Certificate], logs: Mapping[str, Log]) -> None:
    """Check the SCT (RFC 6962 section 3.2): a CT log recorded the certificate while that log was trusted.

    Without configured logs nothing is checked. Raises SignatureRefused(reason="certificate").
    """
    if not logs:
        return
    found = extension(path[0], x509.PrecertificateSignedCertificateTimestamps)
    if not found or len(path) < 2:
        raise SignatureRefused("the certificate has no certificate transparency timestamp", reason="certificate")
    # One valid SCT is enough: the others may come from logs that this trust root does not know.
    for sct in found:
        log = logs.get(sct.log_id.hex())
        sound = sct.entry_type is LogEntryType.PRE_CERTIFICATE and isinstance(
            sct.signature_hash_algorithm, hashes.SHA256
        )
        # The time is signed by the log, so a log that was retired cannot be used for certificates issued later.
        if log is None or not sound or not log.period.holds(sct.timestamp.replace(tzinfo=UTC)):
            continue
        if verify_signature(log.key, sct.signature, _signed_by_log(sct, path[0], path[1])):
            return
    raise SignatureRefused("no trusted certificate transparency log has recorded the certificate", reason="certificate")


def _signed_by_log(sct: SignedCertificateTimestamp, leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    # RFC 6962 section 3.2: digitally-signed struct for a precert_entry, with the issuer's key hash before the TBS.
    tbs = leaf.tbs_precertificate_bytes
    milliseconds = int(sct.timestamp.replace(tzinfo=UTC).timestamp() * 1000)
    head = struct.pack("!BBQH", 0, 0, milliseconds, 1)
    entry = bytes.fromhex(key_id(certificate_key(issuer))) + len(tbs).to_bytes(3, "big") + tbs
    return head + entry + struct.pack("!H", len(sct.extension_bytes)) + sct.extension_bytes


def check_identity(certificate: x509.Certificate, identities: Sequence[Identity]) -> KeylessSigner:
    """Return the signer if issuer and subject of the certificate match one of ``identities``.

    Raises SignatureRefused: identity, malformed.
    """
    issuer, subjects = _issuer(certificate), _subjects(certificate)
    for subject in subjects:
        if any(identity.matches(issuer, subject) for identity in identities):
            return KeylessSigner(subject, issuer)
    shown = clean_text(", ".join(subjects) or "no subject", 200)
    raise SignatureRefused(f"signed by {shown} issued by {clean_text(issuer or 'no issuer', 200)}", reason="identity")


def _issuer(certificate: x509.Certificate) -> str:
    values = {e.oid: e.value.value for e in certificate.extensions if isinstance(e.value, x509.UnrecognizedExtension)}
    # Fulcio writes both extensions (v1 raw, v2 DER). If they differ, two verifiers would see two issuers.
    old = values.get(_ISSUER_V1, b"").decode("utf-8", "replace")
    new = _utf8(values[_ISSUER_V2]) if _ISSUER_V2 in values else ""
    if old and new and old != new:
        raise SignatureRefused("the certificate names two issuers", reason="malformed")
    return new or old


def _subjects(certificate: x509.Certificate) -> tuple[str, ...]:
    names = extension(certificate, x509.SubjectAlternativeName)
    found = []
    for name in names or ():
        if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier | x509.DNSName):
            found.append(name.value)
        elif isinstance(name, x509.OtherName) and name.type_id == _OTHER_NAME:
            found.append(_utf8(name.value))
    return tuple(found)


def _utf8(der: bytes) -> str:
    try:
        return str(core.UTF8String.load(der, strict=True).native)
    except (ValueError, TypeError) as error:
        raise SignatureRefused("an extension of the certificate is not a text", reason="malformed") from error
