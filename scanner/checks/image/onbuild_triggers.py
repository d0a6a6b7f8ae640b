"""Instructions that run in other people's builds (ONBUILD)."""

from __future__ import annotations

from scanner.checks.base import ALLOW, ConfigCheck, ImageSubject
from scanner.model.finding import Outcome, Severity


class OnbuildTriggers(ConfigCheck):
    """ONBUILD does nothing in this image and something unasked in every image that is built on it."""

    id = "onbuild-triggers"
    title = "ONBUILD instructions"
    severity = Severity.LOW
    remedy = "write the instructions into the Dockerfiles that need them"
    looks_at = "config.OnBuild"
    cannot_see = "whether anything is built on this image"
    article = ("Image Management: Keep Images Small",)
    tags = ("config",)
    parameters = ALLOW

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        found = (
            subject.setting(f"ONBUILD {line}", "ONBUILD", holding=line, pointer=f"/config/OnBuild/{index}", name=line)
            for index, line in enumerate(subject.image.config.onbuild)
        )
        return self.judged(found, subject.parameters)
