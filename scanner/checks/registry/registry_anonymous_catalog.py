"""Anonymous listing of repositories (article: access controls)."""

from __future__ import annotations

from scanner.checks._access import AccessCheck
from scanner.checks.base import RegistrySubject
from scanner.model.finding import Incomplete, Severity
from scanner.model.posture import Access


class AnonymousCatalog(AccessCheck):
    """A list of repositories tells an attacker what to pull. See ``AccessCheck``."""

    id = "registry-anonymous-catalog"
    title = "Anonymous clients can list repositories"
    severity = Severity.MEDIUM
    may = "list the repositories"
    remedy = "require authentication for registry:catalog:*, or for everything under /v2/"
    looks_at = "the answer to GET /v2/_catalog without credentials, or with an anonymous token"
    cannot_see = "other lists, such as web pages of the registry"

    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """See ``AccessCheck.fact``."""
        return subject.facts.access.catalog
