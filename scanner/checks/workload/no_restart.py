"""No restart policy (Lessons Learned: plan for failure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class NoRestart(ContainerCheck):
    """Without a restart policy one crash, which an attacker may provoke, is an outage."""

    id = "no-restart"
    title = "No restart policy"
    severity = Severity.LOW
    remedy = "restart: on-failure:5"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "restart: on-failure:5",
        "docker": "docker run --restart on-failure:5",
        "swarm": "docker service update --restart-condition on-failure",
    }
    looks_at = "the restart policy"
    cannot_see = "an external supervisor, and whether the program is meant to exit"
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source not in ("docker", "compose", "swarm") or workload.kind not in ("container", "service"):
            return NotApplicable("the platform restarts failed workloads itself")
        if workload.source == "compose" and workload.restart == "no":
            return Passed()  # written explicitly, so it is taken as a task that is meant to end
        if workload.restart in ("no", "none") or (workload.restart is None and workload.source != "swarm"):
            return self.failed(workload, evidence(workload, "it is not restarted after a failure", "restart"))
        return Passed()
