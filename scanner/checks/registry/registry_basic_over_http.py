"""Passwords in clear text (RFC 7617 section 4; article: authentication)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Passed, Severity


class BasicOverHttp(RegistryCheck):
    """Passwords over plain HTTP can be read by anyone in the network."""

    id = "registry-basic-over-http"
    title = "Passwords over plain HTTP"
    severity = Severity.CRITICAL
    remedy = "serve TLS: http: {tls: {certificate: …, key: …}}; then change all passwords that were sent"
    looks_at = "the authentication challenges of GET /v2/, and whether they are sent over TLS"
    cannot_see = "passwords that clients send without a challenge"
    article = ("Security: Registry Security",)
    tags = ("registry", "authentication")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        challenges = subject.facts.challenges
        if isinstance(challenges, Incomplete):
            return challenges
        basic = [challenge for challenge in challenges if challenge.scheme == "basic"]
        if not basic:
            return NotApplicable("the registry does not use Basic authentication")
        found = tuple(
            Evidence(f"the registry requests a password over plain HTTP (realm {c.realm})")
            for c in basic
            if not c.secure
        )
        return Failed(found) if found else Passed()
