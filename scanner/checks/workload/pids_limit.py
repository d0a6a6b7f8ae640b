"""No limit on processes (CIS Docker 5.29)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class PidsLimit(ContainerCheck):
    """A fork bomb in one container can use up the process table of the host."""

    id = "pids-limit"
    title = "No limit on processes"
    severity = Severity.LOW
    remedy = "deploy: {resources: {limits: {pids: 200}}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "deploy: {resources: {limits: {pids: 200}}}",
        "docker": "docker run --pids-limit 200",
        "swarm": "docker service update --limit-pids 200",
        "marathon": '{"key": "pids-limit", "value": "200"}',
    }
    looks_at = "the PIDs limit"
    cannot_see = "the kubelet's podPidsLimit"
    cis = ("5.29",)
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.os == "windows":
            return NotApplicable("Windows has no such limit")
        if workload.source in ("kubernetes", "ecs"):
            return NotApplicable("the node sets the limit, not the workload")
        if workload.pids_limit is not None and workload.pids_limit > 0:
            return Passed()
        return self.failed(
            workload, evidence(workload, "no limit on processes: a fork bomb can exhaust the host", "pids_limit")
        )
