"""Certificates with weak signatures (RFC 6151, RFC 9155, SHAttered; article: TLS)."""

from __future__ import annotations

from scanner.checks.base import CertificateCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.posture import CertificateFact

_BROKEN_HASHES = ("md2", "md4", "md5", "sha1")
_GOOD_HASHES = ("sha224", "sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512", "ed25519", "ed448")


class CertificateSignature(CertificateCheck):
    """MD5 and SHA-1 in the signature of any certificate that a client needs.

    Self-signatures of roots are ignored, because no client relies on them.
    """

    id = "registry-certificate-signature"
    title = "Weak signature"
    severity = Severity.HIGH
    remedy = "reissue the certificate with SHA-256 or better"
    looks_at = "the signature hash of all certificates from the server's to a trusted CA, except self-signed CAs"
    cannot_see = "signatures in the handshake"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")

    def examine_chain(self, chain: tuple[CertificateFact, ...], subject: RegistrySubject) -> Outcome:
        """See ``CertificateCheck.examine_chain``."""
        signed = [c for index, c in enumerate(chain) if index == 0 or not c.self_signed]
        weak = [c for c in signed if c.signature_hash in _BROKEN_HASHES]
        if weak:
            return Failed(
                tuple(
                    Evidence(f"{c.subject} is signed with {c.signature_hash}", certificate=c.fingerprint) for c in weak
                )
            )
        unknown = [c.signature_hash for c in signed if c.signature_hash not in _GOOD_HASHES]
        if unknown:
            return Incomplete("unknown_signature", f"unknown signature algorithm: {unknown[0] or 'no name'}")
        return Passed()
