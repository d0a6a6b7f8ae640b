"""Private software that strangers can pull is public (article: authentication)."""

from __future__ import annotations

from scanner.checks._access import AccessCheck
from scanner.checks.base import RegistrySubject
from scanner.model.finding import Incomplete, Severity
from scanner.model.posture import Access


class AnonymousPull(AccessCheck):
    """Images are given to anybody: see ``AccessCheck``."""

    id = "registry-anonymous-pull"
    title = "Images are given to anybody"
    severity = Severity.MEDIUM
    may = "pull images"
    remedy = "make the project or repository private; require authentication for everything under /v2/"
    looks_at = "the answer to a list of tags without credentials, after the token that anybody gets"
    cannot_see = "repositories other than the one that was asked about"

    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """See ``AccessCheck.fact``."""
        return subject.facts.access.pull
