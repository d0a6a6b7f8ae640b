"""No useful healthcheck (CIS Docker 4.6)."""

from __future__ import annotations

import re

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, Outcome, Passed, Severity

_TRIVIAL = re.compile(
    r"^(?:(?:/(?:usr/)?bin/)?(?:true|:|echo\b[^|&;<>]*)|exit\s+0|(?:/bin/)?sh -c (?:true|'exit 0'|\"exit 0\"))$"
)


class HealthcheckPresent(ConfigCheck):
    """A healthcheck that is missing, switched off, or cannot fail tells an orchestrator nothing."""

    id = "healthcheck"
    title = "No useful healthcheck"
    severity = Severity.LOW
    remedy = 'HEALTHCHECK --interval=30s --timeout=3s CMD ["/app/healthcheck"]'
    looks_at = "config.Healthcheck: present, not NONE, and a command that can fail"
    cannot_see = "whether the command tests what matters; probes that an orchestrator declares instead"
    cis = ("4.6",)
    dockle = ("CIS-DI-0006",)
    trivy = ("DS-0026",)
    article = ("Logging and Monitoring: Health Checks",)
    tags = ("config",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        check = subject.image.config.healthcheck
        if check is None or not check.test or check.test == ("",):
            return self._failed(subject, "the image declares no healthcheck")
        if check.test[0] == "NONE":
            return self._failed(subject, "the healthcheck is switched off (NONE)")
        command = " ".join(check.test[1:]).strip()
        if not command or _TRIVIAL.fullmatch(command):
            return self._failed(subject, f"the healthcheck can never fail: {command or 'empty'}")
        if command.endswith(("|| true", "|| :", "; true", "; exit 0", "|| exit 0")):
            return self._failed(subject, f"the healthcheck hides its own failure: {command}")
        return Passed()

    def _failed(self, subject: ImageSubject, message: str) -> Outcome:
        return Failed((subject.evidence(message, pointer="/config/Healthcheck"),))
