"""Anonymous push of images (article: access controls)."""

from __future__ import annotations

from scanner.checks._access import AccessCheck
from scanner.checks.base import RegistrySubject
from scanner.model.finding import Incomplete, Severity
from scanner.model.posture import Access


class AnonymousPush(AccessCheck):
    """Anonymous clients can replace images that others run. See ``AccessCheck``."""

    id = "registry-anonymous-push"
    title = "Anonymous clients can push images"
    severity = Severity.CRITICAL
    may = "push images"
    remedy = "require authentication for pushing: auth: {htpasswd: …} or {token: …} in the registry's configuration"
    looks_at = "whether an upload can be started without credentials; it is cancelled without sending data"
    cannot_see = "repositories other than the tested one; whether a completed upload would be refused"

    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """See ``AccessCheck.fact``."""
        return subject.facts.access.push
