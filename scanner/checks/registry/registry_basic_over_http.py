"""Passwords in the clear (RFC 7617 section 4; article: authentication)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Passed, Severity


class BasicOverHttp(RegistryCheck):
    """A registry that asks for a password over plain HTTP has it read by everybody on the way."""

    id = "registry-basic-over-http"
    title = "Asks for passwords over plain HTTP"
    severity = Severity.CRITICAL
    remedy = "serve TLS, then change every password that was ever sent: http: {tls: {certificate: …, key: …}}"
    looks_at = "the challenges of GET /v2/ and whether they came over TLS"
    cannot_see = "passwords that clients send without being asked"
    article = ("Security: Registry Security",)
    tags = ("registry", "authentication")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        challenges = subject.facts.challenges
        if isinstance(challenges, Incomplete):
            return challenges
        basic = [challenge for challenge in challenges if challenge.scheme == "basic"]
        if not basic:
            return NotApplicable("it asks for no password")
        found = tuple(
            Evidence(f"it asks for a password over plain HTTP (realm {c.realm})") for c in basic if not c.secure
        )
        return Failed(found) if found else Passed()
