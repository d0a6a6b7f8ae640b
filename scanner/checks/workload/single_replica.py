"""A single replica (Lessons Learned: plan for failure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class SingleReplica(ContainerCheck):
    """With a single replica, a failure or a drain of its node is an outage."""

    id = "single-replica"
    title = "Single replica"
    severity = Severity.LOW
    remedy = "replicas: 2"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "replicas: 2",
        "swarm": "docker service scale NAME=2",
        "ecs": '"desiredCount": 2',
        "marathon": '"instances": 2',
    }
    looks_at = "the number of replicas"
    cannot_see = "replicas added by an autoscaler"
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.kind not in ("Deployment", "service", "app", "task-definition") or workload.source in (
            "docker",
            "compose",
        ):
            return NotApplicable("this kind of workload is not replicated")
        if workload.replicas is None and workload.source in ("ecs", "swarm"):
            return NotApplicable("the number of replicas is set elsewhere")
        replicas = 1 if workload.replicas is None else workload.replicas
        if replicas != 1:
            return Passed()
        return self.failed(
            workload, evidence(workload, "one replica: a failure of its node stops the service", "replicas")
        )
