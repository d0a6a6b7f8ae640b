"""Certificates without a trusted CA (RFC 5280 section 6; article: TLS)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.posture import CertificateFact, TlsFacts


class CertificateTrust(RegistryCheck):
    """The chain must lead to a CA of the system or a configured one. Otherwise users learn to disable verification."""

    id = "registry-certificate-trust"
    title = "Certificate is not trusted"
    severity = Severity.HIGH
    remedy = "use a certificate of a public CA with its intermediates, or configure the private CA with --ca-file"
    looks_at = "the sent chain, verified by OpenSSL with the system's and the configured CAs"
    cannot_see = "revocation; CA stores of other clients; expiry and name, which have their own checks"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        tls = subject.facts.tls
        if tls is None:
            return Failed((Evidence("the registry does not use TLS, so clients cannot verify its identity"),))
        if not isinstance(tls, TlsFacts):
            return tls
        if isinstance(tls.trust, Incomplete):
            return tls.trust
        if tls.trust.trusted:
            return Passed()
        chain = () if isinstance(tls.chain, Incomplete) else tls.chain
        given = "" if tls.trust.own_ca else "; no private CA is configured"
        fingerprint = chain[0].fingerprint if chain else ""
        return Failed((Evidence(f"{_distrust_reason(chain)}: {tls.trust.problem}{given}", certificate=fingerprint),))


def _distrust_reason(chain: tuple[CertificateFact, ...]) -> str:
    if not chain:
        return "the certificate is not trusted"
    if chain[0].self_signed:
        return f"the certificate is self-signed ({chain[0].subject})"
    return f"{chain[0].subject} has no trusted CA; the issuer {chain[-1].issuer} is unknown"
