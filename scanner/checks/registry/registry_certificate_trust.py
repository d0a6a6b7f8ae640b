"""A certificate that nobody vouches for (RFC 5280 section 6; article: TLS)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.posture import CertificateFact, TlsFacts


class CertificateTrust(RegistryCheck):
    """The chain must lead to a CA of the system or to one that was given.

    Whoever cannot verify it is taught to switch verification off.
    """

    id = "registry-certificate-trust"
    title = "Certificate is not trusted"
    severity = Severity.HIGH
    remedy = "use a certificate of a public CA with its intermediates, or give the private CA with --ca-file"
    looks_at = "the chain as it was sent, verified with OpenSSL against the system's CAs and those given"
    cannot_see = "revocation; other clients' stores of CAs; time and name, which have checks of their own"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        tls = subject.facts.tls
        if tls is None:
            return Failed((Evidence("it speaks no TLS: nobody can tell who answers"),))
        if not isinstance(tls, TlsFacts):
            return tls
        if isinstance(tls.trust, Incomplete):
            return tls.trust
        if tls.trust.trusted:
            return Passed()
        chain = () if isinstance(tls.chain, Incomplete) else tls.chain
        given = "" if tls.trust.own_ca else "; no CA of its own was given"
        fingerprint = chain[0].fingerprint if chain else ""
        return Failed((Evidence(f"{_why(chain)}: {tls.trust.problem}{given}", certificate=fingerprint),))


def _why(chain: tuple[CertificateFact, ...]) -> str:
    if not chain:
        return "its certificate is not trusted"
    if chain[0].self_signed:
        return f"its certificate is self-signed ({chain[0].subject})"
    return f"no trusted CA vouches for {chain[0].subject}; {chain[-1].issuer} is unknown here"
