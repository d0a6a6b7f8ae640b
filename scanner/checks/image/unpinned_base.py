"""Built on a base that moves (CIS Docker 4.2; article: tag immutably)."""

from __future__ import annotations

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.errors import UsageError
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.reference import Reference

HINT = "scan the base as well, or build with the annotations org.opencontainers.image.base.name and .digest"


class UnpinnedBase(ImageCheck):
    """``FROM debian`` or ``FROM debian:latest`` is whatever was pushed last: two builds of one Dockerfile are two
    systems.
    """

    id = "unpinned-base"
    title = "Base image by latest or without a tag"
    severity = Severity.MEDIUM
    remedy = "FROM debian:12-slim@sha256:DIGEST"
    looks_at = (
        "the base's name: of a known image whose layers are below, in the annotations and labels for "
        "it, in buildah's history"
    )
    cannot_see = "the FROM line itself, which no builder records"
    trivy = ("DS-0001",)
    article = ("Image Management: Tag Immutably",)
    tags = ("build", "base")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        base = subject.base
        if base is None or not base.reference:
            return Incomplete("base_unknown", f"nothing says what the image was built on; {HINT}")
        if base.note:
            return Incomplete("base_contradicted", base.note)
        try:
            reference = Reference.parse(base.reference)
        except UsageError:
            return Incomplete("base_unknown", "the base's name cannot be read")
        if reference.digest is None and reference.tag in (None, "latest"):
            return Failed((subject.evidence(f"built on {base.reference}: a tag that moves", name=base.reference),))
        return Passed()
