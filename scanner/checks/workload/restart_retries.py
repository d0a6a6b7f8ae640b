"""Restart retries (CIS Docker 5.15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class RestartRetries(ContainerCheck):
    """Restarts without end."""

    id = "restart-retries"
    title = "Restarts without end"
    severity = Severity.LOW
    remedy = "restart: on-failure:5"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "restart: on-failure:5",
        "docker": "docker run --restart on-failure:5",
    }
    looks_at = "the restart policy and its number of retries"
    cannot_see = "a supervisor around it"
    cis = ("5.15",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source in ("kubernetes", "ecs", "marathon"):
            return NotApplicable("the platform waits longer after each failure")
        if workload.source == "swarm" or workload.restart == "any":
            return Passed()
        if workload.restart in ("always", "unless-stopped"):
            return self.failed(workload, evidence(workload, f"it restarts without end ({workload.restart})", "restart"))
        if workload.restart == "on-failure" and not 0 < (workload.restart_max_retries or 0) <= 5:
            return self.failed(workload, evidence(workload, "it restarts more than 5 times after a failure", "restart"))
        return Passed()
