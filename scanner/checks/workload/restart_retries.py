"""Restart retries (CIS Docker 5.15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class RestartRetries(ContainerCheck):
    """Endless restarts hide a crash, use CPU, and give an exploit that is not reliable any number of tries."""

    id = "restart-retries"
    title = "Unlimited restarts"
    severity = Severity.LOW
    remedy = "restart: on-failure:5"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "restart: on-failure:5",
        "docker": "docker run --restart on-failure:5",
    }
    looks_at = "the restart policy and its maximum number of retries"
    cannot_see = "an external supervisor"
    cis = ("5.15",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source in ("kubernetes", "ecs", "marathon"):
            return NotApplicable("the platform delays each restart more after repeated failures")
        if workload.source == "swarm" or workload.restart == "any":
            return Passed()
        if workload.restart in ("always", "unless-stopped"):
            return self.failed(workload, evidence(workload, f"restarts without limit ({workload.restart})", "restart"))
        if workload.restart == "on-failure" and not 0 < (workload.restart_max_retries or 0) <= 5:
            return self.failed(
                workload, evidence(workload, "more than 5 restarts after a failure are allowed", "restart")
            )
        return Passed()
