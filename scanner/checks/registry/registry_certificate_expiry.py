"""Expiry of certificates (RFC 5280 section 4.1.2.5; article: TLS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from scanner.checks.base import CertificateCheck, RegistrySubject
from scanner.model.finding import Evidence, Outcome, Severity
from scanner.model.posture import CertificateFact


class CertificateExpiry(CertificateCheck):
    """After the expiry no client can pull. Sent certificates that no client needs may be expired."""

    id = "registry-certificate-expiry"
    title = "Certificate has expired or expires soon"
    severity = Severity.HIGH
    remedy = "renew the certificate, and automate the renewal (ACME)"
    looks_at = "the validity of all certificates from the server's to a trusted CA, now and in min_days"
    cannot_see = "certificates that are not sent; clients with fewer CAs; automatic renewal"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")
    parameters: ClassVar[dict[str, Any]] = {"min_days": 14}

    def examine_chain(self, chain: tuple[CertificateFact, ...], subject: RegistrySubject) -> Outcome:
        """See ``CertificateCheck.examine_chain``."""
        return self.judged((_evidence(certificate, subject.now) for certificate in chain), subject.parameters)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``."""
        return bool(_days(evidence) >= parameters["min_days"])

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """See ``Check.severity_of``."""
        return None if any(_days(item) < 0 for item in evidence) else Severity.MEDIUM


def _days(evidence: Evidence) -> float:
    """Return the days until expiry. Negative: not valid."""
    return evidence.amount if evidence.amount is not None else -1


def _evidence(certificate: CertificateFact, now: datetime) -> Evidence:
    days = (certificate.not_after - now) // timedelta(days=1)
    if now < certificate.not_before:
        days, message = -1, f"is not valid before {certificate.not_before:%Y-%m-%d}"
    elif days < 0:
        message = f"expired on {certificate.not_after:%Y-%m-%d}, {-days} days ago"
    else:
        message = f"expires on {certificate.not_after:%Y-%m-%d}, in {days} days"
    subject = certificate.subject or certificate.fingerprint[:16]
    return Evidence(f"{subject} {message}", certificate=certificate.fingerprint, amount=days)
