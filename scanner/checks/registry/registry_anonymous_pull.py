"""Anonymous pull of images (article: authentication)."""

from __future__ import annotations

from scanner.checks._access import AccessCheck
from scanner.checks.base import RegistrySubject
from scanner.model.finding import Incomplete, Severity
from scanner.model.posture import Access


class AnonymousPull(AccessCheck):
    """Images that anonymous clients can pull are public. See ``AccessCheck``."""

    id = "registry-anonymous-pull"
    title = "Anonymous clients can pull images"
    severity = Severity.MEDIUM
    may = "pull images"
    remedy = "make the project or repository private; require authentication for everything under /v2/"
    looks_at = "the answer to a list of tags without credentials, or with an anonymous token"
    cannot_see = "repositories other than the tested one"

    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """See ``AccessCheck.fact``."""
        return subject.facts.access.pull
