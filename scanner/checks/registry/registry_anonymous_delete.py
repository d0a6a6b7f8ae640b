"""Who can delete can stop every deployment (article: access controls)."""

from __future__ import annotations

from scanner.checks._access import AccessCheck
from scanner.checks.base import RegistrySubject
from scanner.model.finding import Incomplete, Severity
from scanner.model.posture import Access


class AnonymousDelete(AccessCheck):
    """Anybody can delete images: see ``AccessCheck``."""

    id = "registry-anonymous-delete"
    title = "Anybody can delete images"
    severity = Severity.CRITICAL
    may = "delete images"
    remedy = (
        "require authentication, and switch deletion off where nothing deletes: storage: {delete: {enabled: false}}"
    )
    looks_at = "the answer to a deletion without credentials of a digest that nothing can have"
    cannot_see = "repositories other than the one that was asked about"

    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """See ``AccessCheck.fact``."""
        return subject.facts.access.delete
