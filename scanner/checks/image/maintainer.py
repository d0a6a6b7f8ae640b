"""MAINTAINER instruction (deprecated since Docker 1.13)."""

from __future__ import annotations

from scanner.checks._history import evidence, history
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Outcome, Severity


class Maintainer(ConfigCheck):
    """MAINTAINER is deprecated. Tools read the label ``org.opencontainers.image.authors`` instead."""

    id = "maintainer"
    title = "MAINTAINER is deprecated"
    severity = Severity.LOW
    remedy = 'LABEL org.opencontainers.image.authors="team@example.com"'
    looks_at = "MAINTAINER instructions in the history"
    cannot_see = "instructions of images without history (incomplete)"
    trivy = ("DS-0022",)
    article = ("Image Management: Tag Immutably",)
    tags = ("build", "history")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        return lines.outcome(
            [evidence(subject, one, "MAINTAINER is used") for one in lines.instructions if one.name == "MAINTAINER"]
        )
