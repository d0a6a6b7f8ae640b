"""Enforcement of digests (distribution-spec, content verification)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


class DigestEnforced(RegistryCheck):
    """The identity of images is their digest.

    A registry that serves other content under a digest can replace images.
    """

    id = "registry-digest"
    title = "Digests are not enforced"
    severity = Severity.CRITICAL
    remedy = "replace the registry or the proxy in front of it, and trust no image from it"
    looks_at = "the answers to an impossible digest, and to a manifest by tag and by digest"
    cannot_see = "other repositories and blobs; answers to other clients"
    article = ("Security: Registry Security",)
    tags = ("registry",)

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        digest = subject.facts.digest
        if isinstance(digest, Incomplete):
            return digest
        return Failed((Evidence(digest.problem),)) if digest.problem else Passed()
