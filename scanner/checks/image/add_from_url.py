"""ADD with a URL (CIS Docker 4.9)."""

from __future__ import annotations

import re

from scanner.checks._history import Instruction, address, evidence, history
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Outcome, Severity
from scanner.patterns import lazy

_REMOTE = lazy(r"^(?:[a-z][a-z0-9+.-]*://|git@)", re.IGNORECASE)


class AddFromUrl(ConfigCheck):
    """``ADD https://…`` adds what the server currently sends, without verification unless a checksum is given."""

    id = "add-from-url"
    title = "ADD from a URL"
    severity = Severity.MEDIUM
    remedy = "ADD --checksum=sha256:DIGEST https://example.com/file /file"
    looks_at = "ADD instructions in the history with a URL or git repository as source"
    cannot_see = "checksums, which BuildKit does not record; URLs of the classic builder, which records a digest"
    cis = ("4.9",)
    dockle = ("CIS-DI-0009",)
    trivy = ("DS-0005",)
    article = ("Security: Registry Security",)
    tags = ("build", "history", "supply-chain")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        return lines.outcome(
            [
                evidence(subject, one, f"ADD downloads {address(source)} without verification")
                for one in lines.instructions
                if one.name == "ADD" and "--checksum=" not in one.text
                for source in _sources(one)
            ]
        )


def _sources(one: Instruction) -> list[str]:
    return [word for word in one.text.split()[:-1] if _REMOTE.match(word)]
