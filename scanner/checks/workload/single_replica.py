"""A single replica (Lessons Learned: plan for failure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class SingleReplica(ContainerCheck):
    """Has only one replica."""

    id = "single-replica"
    title = "Has only one replica"
    severity = Severity.LOW
    remedy = "replicas: 2"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "replicas: 2",
        "swarm": "docker service scale NAME=2",
        "ecs": '"desiredCount": 2',
        "marathon": '"instances": 2',
    }
    looks_at = "the number of replicas"
    cannot_see = "an autoscaler"
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.kind not in ("Deployment", "service", "app", "task-definition") or workload.source in (
            "docker",
            "compose",
        ):
            return NotApplicable("it is not replicated")
        if workload.replicas is None and workload.source in ("ecs", "swarm"):
            return NotApplicable("the number of replicas is not said here")
        replicas = 1 if workload.replicas is None else workload.replicas
        if replicas != 1:
            return Passed()
        return self.failed(
            workload, evidence(workload, "it has one replica: a failure of its node stops it", "replicas")
        )
