"""Outdated base image (CIS Docker 4.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Evidence, Incomplete, Outcome, Severity
from scanner.model.lineage import BaseImage


class OutdatedBase(ImageCheck):
    """Fixes in a base image take effect only after a rebuild.

    The age of the base is measured at the image's build, so that the outcome does not change with time. The image's
    current age is ``image.age_days`` in policy expressions.
    """

    id = "outdated-base"
    title = "Base image outdated"
    severity = Severity.MEDIUM
    remedy = "rebuild the image on the newest digest of the base"
    looks_at = (
        "the last known digest of the base's tag (from pushes, scans and configured registries), and the base's age at "
        "the build"
    )
    cannot_see = (
        "tags in registries that are not configured; bases that were never scanned and that the image does not declare"
    )
    cis = ("4.4",)
    dockle = ("CIS-DI-0004",)
    article = ("Security: Image Scanning",)
    tags = ("base",)
    parameters: ClassVar[Mapping[str, Any]] = MappingProxyType({"max_days": 90})

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        base = subject.base
        if base is None:
            return Incomplete("base_unknown", "the base image is unknown; scan the base image, too")
        if base.note:
            return Incomplete("base_contradicted", base.note)
        seen = list(_base_evidence(subject, base))
        judged = self.judged(seen, subject.parameters)
        if base.outdated is None and judged.kind == "passed":
            return Incomplete("newer_base_unknown", f"the current digest of {base.reference or 'the base'} is unknown")
        return judged

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``."""
        return evidence.amount is not None and evidence.amount <= parameters["max_days"]


def _base_evidence(subject: ImageSubject, base: BaseImage) -> Iterator[Evidence]:
    if base.outdated and base.newest and base.digest:
        message = f"{base.reference} is now {base.newest.short}; the image was built on {base.digest.short}"
        yield subject.evidence(message, name=base.reference)
    built = subject.image.config.created
    if built and base.created and base.created.year > 1980:  # reproducible builds set 1970 or 1980
        days = (built - base.created).days
        if days > 0:
            message = (
                f"{base.reference or 'the base'} of {base.created:%Y-%m-%d} was {days} days old when "
                "the image was built"
            )
            yield subject.evidence(message, name=base.reference, amount=float(days))
