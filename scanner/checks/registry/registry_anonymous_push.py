"""Who can push decides what everybody runs (article: access controls)."""

from __future__ import annotations

from scanner.checks._access import AccessCheck
from scanner.checks.base import RegistrySubject
from scanner.model.finding import Incomplete, Severity
from scanner.model.posture import Access


class AnonymousPush(AccessCheck):
    """Anybody can push images: see ``AccessCheck``."""

    id = "registry-anonymous-push"
    title = "Anybody can push images"
    severity = Severity.CRITICAL
    may = "push images"
    remedy = "require authentication for pushing: auth: {htpasswd: …} or {token: …} in the registry's configuration"
    looks_at = "whether an upload is let begin without credentials; it is cancelled at once, without a byte"
    cannot_see = "repositories other than the one that was asked about; whether a finished upload would be refused"

    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """See ``AccessCheck.fact``."""
        return subject.facts.access.push
