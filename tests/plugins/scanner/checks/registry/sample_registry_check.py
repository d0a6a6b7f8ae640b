"""A sample: a registry without Strict-Transport-Security."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


class SampleRegistryCheck(RegistryCheck):
    """The header protects browsers from a first request without TLS."""

    id = "sample-registry-check"
    title = "No Strict-Transport-Security header"
    severity = Severity.LOW
    remedy = "send the header Strict-Transport-Security"
    looks_at = "the header Strict-Transport-Security"
    cannot_see = "what browsers do with the header"
    article = ("Security: Registry Security",)
    tags = ("registry",)

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        hsts = subject.facts.hsts
        if isinstance(hsts, Incomplete):
            return hsts
        return Passed() if hsts else Failed((Evidence("GET /v2/ answers without Strict-Transport-Security"),))
