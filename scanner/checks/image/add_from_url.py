"""A file taken from the network by ADD (CIS Docker 4.9)."""

from __future__ import annotations

import re

from scanner.checks._history import Instruction, address, evidence, history
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Outcome, Severity

_REMOTE = re.compile(r"^(?:[a-z][a-z0-9+.-]*://|git@)", re.IGNORECASE)


class AddFromUrl(ConfigCheck):
    """``ADD https://…`` puts whatever the server sends today into the image.

    Nothing checks it, unless a checksum is given.
    """

    id = "add-from-url"
    title = "ADD from a URL"
    severity = Severity.MEDIUM
    remedy = "ADD --checksum=sha256:DIGEST https://example.com/file /file"
    looks_at = "every ADD of the history whose source is a URL or a git repository"
    cannot_see = (
        "a checksum, which BuildKit does not write into the history, and URLs of the classic "
        "builder, which writes a digest instead"
    )
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
                evidence(subject, one, f"ADD takes {address(source)} from the network, unverified")
                for one in lines.instructions
                if one.name == "ADD" and "--checksum=" not in one.text
                for source in _sources(one)
            ]
        )


def _sources(one: Instruction) -> list[str]:
    return [word for word in one.text.split()[:-1] if _REMOTE.match(word)]
