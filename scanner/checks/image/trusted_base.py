"""Base images that are not approved (CIS Docker 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Incomplete, Outcome, Severity


class TrustedBase(ImageCheck):
    """A policy lists the approved base images in the parameter ``allow``.

    The base declared by an image proves nothing. The layers of a scanned image prove it.
    """

    id = "trusted-base"
    title = "Base image not on the list"
    severity = Severity.HIGH
    remedy = "FROM one of the base images in the policy's list"
    looks_at = (
        "the name of the scanned image whose layers are the first of this image, compared with the globs in allow (by "
        "default every scanned base passes)"
    )
    cannot_see = "base images that were never scanned"
    cis = ("4.2",)
    dockle = ("CIS-DI-0002",)
    article = ("Image Management: Keep Images Small", "Lessons Learned: Treat images as artifacts")
    tags = ("base", "supply-chain")
    parameters: ClassVar[Mapping[str, Any]] = MappingProxyType({"allow": ("*",)})

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        base = subject.base
        if base is None:
            return Incomplete(
                "base_unknown", "no scanned image has the first layers of this image; scan the base image, too"
            )
        if base.note:
            return Incomplete("base_contradicted", base.note)
        if not base.proven:
            return Incomplete(
                "base_unproven", f"only the image itself declares the base {base.reference}; scan the base image, too"
            )
        name = base.reference or str(base.digest)
        return self.judged([subject.evidence(f"built on {name}", name=name)], subject.parameters)
