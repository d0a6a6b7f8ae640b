"""Built on a base that nobody approved (CIS Docker 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Incomplete, Outcome, Severity


class TrustedBase(ImageCheck):
    """Which bases are trusted is a site's own list: a policy gives it as ``allow``.

    What an image merely says of its base proves nothing; that a known image's layers are below does.
    """

    id = "trusted-base"
    title = "Base image not on the list"
    severity = Severity.HIGH
    remedy = "FROM one of the bases that the policy's list names"
    looks_at = (
        "the known image whose layers are the first of this one, by its name, against globs (allow; "
        "every known base without a list)"
    )
    cannot_see = "bases that were never scanned here"
    cis = ("4.2",)
    dockle = ("CIS-DI-0002",)
    article = ("Image Management: Keep Images Small", "Lessons Learned: Treat images as artifacts")
    tags = ("base", "supply-chain")
    parameters: ClassVar[Mapping[str, Any]] = MappingProxyType({"allow": ("*",)})

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        base = subject.base
        if base is None:
            return Incomplete("base_unknown", "no known image's layers are below this one's; scan the base as well")
        if base.note:
            return Incomplete("base_contradicted", base.note)
        if not base.proven:
            return Incomplete(
                "base_unproven", f"only the image itself says that it was built on {base.reference}; scan that as well"
            )
        name = base.reference or str(base.digest)
        return self.judged([subject.evidence(f"built on {name}", name=name)], subject.parameters)
