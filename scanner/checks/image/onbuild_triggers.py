"""ONBUILD instructions, which run in derived builds."""

from __future__ import annotations

from scanner.checks.base import ALLOW, ConfigCheck, ImageSubject
from scanner.model.finding import Outcome, Severity


class OnbuildTriggers(ConfigCheck):
    """ONBUILD has no effect on this image, but runs unexpectedly in builds of images that are based on it."""

    id = "onbuild-triggers"
    title = "ONBUILD instructions"
    severity = Severity.LOW
    remedy = "move the instructions to the Dockerfiles that need them"
    looks_at = "config.OnBuild"
    cannot_see = "whether other images are based on this one"
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
