"""Digests are not enforced: other bytes than those asked for (distribution-spec, content verification)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


class DigestEnforced(RegistryCheck):
    """Everything about images rests on digests.

    A registry that serves something under a digest which it cannot have breaks all of it.
    """

    id = "registry-digest"
    title = "Digests are not enforced"
    severity = Severity.CRITICAL
    remedy = "replace the registry, or whatever stands between it and you: trust nothing that came from it"
    looks_at = "the answers to a digest that nothing can have, and to one manifest by tag and by digest"
    cannot_see = "repositories and blobs that were not asked for; what it serves to others"
    article = ("Security: Registry Security",)
    tags = ("registry",)

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        digest = subject.facts.digest
        if isinstance(digest, Incomplete):
            return digest
        return Failed((Evidence(digest.problem),)) if digest.problem else Passed()
