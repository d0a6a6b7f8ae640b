"""No limit of processes (CIS Docker 5.29)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class PidsLimit(ContainerCheck):
    """Has no limit of processes."""

    id = "pids-limit"
    title = "Has no limit of processes"
    severity = Severity.LOW
    remedy = "deploy: {resources: {limits: {pids: 200}}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "deploy: {resources: {limits: {pids: 200}}}",
        "docker": "docker run --pids-limit 200",
        "swarm": "docker service update --limit-pids 200",
        "marathon": '{"key": "pids-limit", "value": "200"}',
    }
    looks_at = "the pids limit"
    cannot_see = "the kubelet's podPidsLimit"
    cis = ("5.29",)
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source in ("kubernetes", "ecs"):
            return NotApplicable("the node sets the limit, not the workload")
        if workload.pids_limit is not None and workload.pids_limit > 0:
            return Passed()
        return self.failed(workload, evidence(workload, "it may start processes without end (fork bomb)", "pids_limit"))
