"""OCSP stapling (RFC 6066 section 8, RFC 7633)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.posture import TlsFacts


class OcspStapling(RegistryCheck):
    """Without a stapled response clients do not notice a revoked certificate.

    Not applicable to certificates without an OCSP responder.
    """

    id = "registry-ocsp-stapling"
    title = "No OCSP stapling"
    severity = Severity.LOW
    remedy = "enable stapling in the proxy: ssl_stapling on; ssl_stapling_verify on;"
    looks_at = "the CertificateStatus in a TLS 1.2 handshake, if the certificate has an OCSP responder"
    cannot_see = "the content of the stapled response; stapling of servers with TLS 1.3 only"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        chain, tls = subject.chain(), subject.tls()
        if not isinstance(chain, tuple) or not isinstance(tls, TlsFacts):
            return (
                chain
                if isinstance(chain, Incomplete | NotApplicable)
                else NotApplicable("the registry does not use TLS")
            )
        if not chain[0].ocsp:
            return NotApplicable("the certificate has no OCSP responder")
        if isinstance(tls.stapled, Incomplete):
            return tls.stapled
        if tls.stapled:
            return Passed()
        severity = Severity.HIGH if chain[0].must_staple else None
        message = "the registry staples no OCSP response" + (
            ", although the certificate requires it" if severity else ""
        )
        return Failed((Evidence(message, certificate=chain[0].fingerprint),), severity)
