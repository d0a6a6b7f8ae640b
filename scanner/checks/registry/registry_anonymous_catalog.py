"""Whoever can list repositories knows where to look (article: access controls)."""

from __future__ import annotations

from scanner.checks._access import AccessCheck
from scanner.checks.base import RegistrySubject
from scanner.model.finding import Incomplete, Severity
from scanner.model.posture import Access


class AnonymousCatalog(AccessCheck):
    """Repositories are listed to anybody: see ``AccessCheck``."""

    id = "registry-anonymous-catalog"
    title = "Repositories are listed to anybody"
    severity = Severity.MEDIUM
    may = "list the repositories"
    remedy = "require authentication for registry:catalog:*, or for everything under /v2/"
    looks_at = "the answer to GET /v2/_catalog without credentials, after the token that anybody gets"
    cannot_see = "lists that the registry shows elsewhere, such as on pages of its own"

    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """See ``AccessCheck.fact``."""
        return subject.facts.access.catalog
