"""Anonymous deletion of images (article: access controls)."""

from __future__ import annotations

from scanner.checks._access import AccessCheck
from scanner.checks.base import RegistrySubject
from scanner.model.finding import Incomplete, Severity
from scanner.model.posture import Access


class AnonymousDelete(AccessCheck):
    """Deleted images stop all deployments. See ``AccessCheck``."""

    id = "registry-anonymous-delete"
    title = "Anonymous clients can delete images"
    severity = Severity.CRITICAL
    may = "delete images"
    remedy = "require authentication, and disable deletion if unused: storage: {delete: {enabled: false}}"
    looks_at = "the answer to a deletion of an impossible digest without credentials"
    cannot_see = "repositories other than the tested one"

    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """See ``AccessCheck.fact``."""
        return subject.facts.access.delete
