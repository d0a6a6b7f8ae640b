"""Base image without a fixed version (CIS Docker 4.2; article: tag immutably)."""

from __future__ import annotations

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.errors import UsageError
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.reference import Reference

HINT = "scan the base image, too, or build with the annotations org.opencontainers.image.base.name and .digest"


class UnpinnedBase(ImageCheck):
    """``FROM debian`` and ``FROM debian:latest`` change with every push, so two builds of one Dockerfile differ."""

    id = "unpinned-base"
    title = "Base image with tag latest or without tag"
    severity = Severity.MEDIUM
    remedy = "FROM debian:12-slim@sha256:DIGEST"
    looks_at = (
        "the base's name: from a scanned image with the same first layers, annotations, labels, or buildah's history"
    )
    cannot_see = "the FROM instruction, which builders do not record"
    trivy = ("DS-0001",)
    article = ("Image Management: Tag Immutably",)
    tags = ("build", "base")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        base = subject.base
        if base is None or not base.reference:
            return Incomplete("base_unknown", f"the base image is unknown; {HINT}")
        if base.note:
            return Incomplete("base_contradicted", base.note)
        try:
            reference = Reference.parse(base.reference)
        except UsageError:
            return Incomplete("base_unknown", "the base's name is invalid")
        if reference.digest is None and reference.tag in (None, "latest"):
            return Failed((subject.evidence(f"built on {base.reference}, a mutable tag", name=base.reference),))
        return Passed()
