"""Tag latest (article: tag immutably; CIS Docker 5.28)."""

from __future__ import annotations

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, NotApplicable, Outcome, Passed, Severity


class LatestTag(ConfigCheck):
    """``latest`` moves with every push, so there is no rollback and the running version is unknown."""

    id = "latest-tag"
    title = "Tagged latest"
    severity = Severity.MEDIUM
    remedy = "push and deploy an immutable tag (version or commit), or pin the digest"
    looks_at = "the tag in the scanned reference"
    cannot_see = "other mutable tags; whether the registry makes tags immutable"
    dockle = ("DKL-DI-0006",)
    trivy = ("DS-0001",)
    article = ("Image Management: Tag Immutably",)
    tags = ("naming",)
    looks_at_reference = True

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        if subject.reference is None:
            return NotApplicable("the image is not from a registry")
        if subject.reference.tag is None:
            return Passed()
        if subject.reference.tag == "latest":
            return Failed((subject.evidence(f"{subject.reference.name} is used by the tag latest"),))
        return Passed()
