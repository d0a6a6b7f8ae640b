"""Weak cipher suites (RFC 9325 section 4.1, RFC 7465, SWEET32; article: TLS)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.posture import TlsFacts


class TlsCiphers(RegistryCheck):
    """Accepted cipher suites without encryption or authentication, or with broken ciphers. Fails without TLS, too."""

    id = "registry-tls-ciphers"
    title = "Weak cipher suites"
    severity = Severity.HIGH
    remedy = "allow suites with ECDHE and AES-GCM or ChaCha20 only: ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;"
    looks_at = "the server's choice if only NULL, anonymous, export, RC4, DES, 3DES or IDEA suites are offered"
    cannot_see = "the preference among strong suites; proprietary suites"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        tls = subject.facts.tls
        if tls is None:
            return Failed((Evidence("the registry does not use TLS, so nothing is encrypted"),))
        if not isinstance(tls, TlsFacts):
            return tls
        if isinstance(tls.weak_ciphers, Incomplete):
            return tls.weak_ciphers
        found = tuple(Evidence(f"the registry accepts {name} suites") for name in tls.weak_ciphers)
        return Failed(found) if found else Passed()
