"""No OCSP answer with the certificate (RFC 6066 section 8, RFC 7633)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.posture import TlsFacts


class OcspStapling(RegistryCheck):
    """Without a stapled answer clients do not learn of a revocation.

    A certificate that names no responder has none to staple.
    """

    id = "registry-ocsp-stapling"
    title = "No stapled OCSP answer"
    severity = Severity.LOW
    remedy = "let the proxy in front staple: ssl_stapling on; ssl_stapling_verify on;"
    looks_at = (
        "whether a CertificateStatus comes with a TLS 1.2 handshake, where the certificate names an OCSP responder"
    )
    cannot_see = "what the stapled answer says; stapling of a server that speaks TLS 1.3 only"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        chain, tls = subject.chain(), subject.tls()
        if not isinstance(chain, tuple) or not isinstance(tls, TlsFacts):
            return chain if isinstance(chain, Incomplete | NotApplicable) else NotApplicable("it speaks no TLS")
        if not chain[0].ocsp:
            return NotApplicable("the certificate names no OCSP responder")
        if isinstance(tls.stapled, Incomplete):
            return tls.stapled
        if tls.stapled:
            return Passed()
        severity = Severity.HIGH if chain[0].must_staple else None
        message = "no OCSP answer is stapled" + (", although the certificate demands one" if severity else "")
        return Failed((Evidence(message, certificate=chain[0].fingerprint),), severity)
