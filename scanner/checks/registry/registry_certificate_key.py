"""Weak keys (NIST SP 800-57 part 1; CA/Browser Forum baseline requirements 6.1.5; article: TLS)."""

from __future__ import annotations

from scanner.checks.base import CertificateCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.posture import CertificateFact

_LEAST_BITS = {"RSA": 2048, "EC": 256, "Ed25519": 256, "Ed448": 448}


class CertificateKey(CertificateCheck):
    """RSA below 2048 bits, elliptic curves below 256 bits, and DSA, in any certificate that a client needs."""

    id = "registry-certificate-key"
    title = "Weak key"
    severity = Severity.HIGH
    remedy = "reissue the certificate with a new key: ECDSA P-256, or RSA of 2048 bits or more"
    looks_at = "type and size of the public keys of all certificates from the server's to a trusted CA"
    cannot_see = "leaked keys, and keys from weak random numbers"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")

    def examine_chain(self, chain: tuple[CertificateFact, ...], subject: RegistrySubject) -> Outcome:
        """See ``CertificateCheck.examine_chain``."""
        weak = [c for c in chain if c.key == "DSA" or (c.key in _LEAST_BITS and c.key_bits < _LEAST_BITS[c.key])]
        if weak:
            return Failed(
                tuple(
                    Evidence(f"{c.subject} has a {c.key} key of {c.key_bits} bits", certificate=c.fingerprint)
                    for c in weak
                )
            )
        unknown = [c.key for c in chain if c.key not in _LEAST_BITS]
        return Incomplete("unknown_key", f"unknown type of key: {unknown[0]}") if unknown else Passed()
