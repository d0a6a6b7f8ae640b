"""Built on a base that has been replaced, or was old already (CIS Docker 4.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Evidence, Incomplete, Outcome, Severity
from scanner.model.lineage import BaseImage


class OutdatedBase(ImageCheck):
    """A base's fixes reach an image only when it is built again.

    Ages are counted to the image's own build, so that the same evidence always says the same; how old it is today
    the image's page shows, and ``image.age_days`` in a policy's expression.
    """

    id = "outdated-base"
    title = "Base image outdated"
    severity = Severity.MEDIUM
    remedy = "build again on the base's newest digest"
    looks_at = (
        "what the base's tag was last seen to name (pushes, scans, the registry where it is "
        "configured), and how old the base was at the build"
    )
    cannot_see = (
        "tags of registries that are not configured; bases that were never scanned here and that "
        "the image does not declare"
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
            return Incomplete("base_unknown", "nothing says what the image was built on; scan the base as well")
        if base.note:
            return Incomplete("base_contradicted", base.note)
        seen = list(_seen(subject, base))
        judged = self.judged(seen, subject.parameters)
        if base.outdated is None and judged.kind == "passed":
            return Incomplete("newer_base_unknown", f"what {base.reference or 'the base'} names now is not known here")
        return judged

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``."""
        return evidence.amount is not None and evidence.amount <= parameters["max_days"]


def _seen(subject: ImageSubject, base: BaseImage) -> Iterator[Evidence]:
    if base.outdated and base.newest and base.digest:
        message = f"{base.reference} names {base.newest.short} now; the image was built on {base.digest.short}"
        yield subject.evidence(message, name=base.reference)
    built = subject.image.config.created
    if built and base.created and base.created.year > 1980:  # reproducible builds say 1970 or 1980
        days = (built - base.created).days
        if days > 0:
            message = (
                f"{base.reference or 'the base'} of {base.created:%Y-%m-%d} was {days} days old when "
                "the image was built"
            )
            yield subject.evidence(message, name=base.reference, amount=float(days))
