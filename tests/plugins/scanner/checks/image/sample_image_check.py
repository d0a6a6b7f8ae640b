"""A sample: an image without any label."""

from __future__ import annotations

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, Outcome, Passed, Severity


class SampleImageCheck(ConfigCheck):
    """An image without labels does not say where it comes from."""

    id = "sample-image-check"
    title = "No label at all"
    severity = Severity.LOW
    remedy = "LABEL org.opencontainers.image.source=URL"
    looks_at = "config.Labels"
    cannot_see = "whether a label is true"
    dockle = ("DKL-DI-0006",)
    tags = ("config",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        if subject.image.config.labels:
            return Passed()
        return Failed((subject.setting("the image has no label", "LABEL", pointer="/config/Labels"),))
