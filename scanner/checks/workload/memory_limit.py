"""No memory limit (CIS Docker 5.11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class MemoryLimit(ContainerCheck):
    """A leak or an attack in one container can exhaust the host's memory and stop its neighbours."""

    id = "memory-limit"
    title = "No memory limit"
    severity = Severity.MEDIUM
    remedy = "resources: {limits: {memory: 512Mi}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "resources: {limits: {memory: 512Mi}}",
        "compose": "deploy: {resources: {limits: {memory: 512M}}}",
        "docker": "docker run --memory 512m",
        "swarm": "docker service update --limit-memory 512M",
        "ecs": '"memory": 512',
        "marathon": '"mem": 512',
    }
    looks_at = "the memory limit of the container or its task"
    cannot_see = "the LimitRange of a namespace"
    cis = ("5.11",)
    trivy = ("KSV-0018",)
    kubesec = ("LimitsMemory",)
    nsa = ("Resource policies",)
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.memory is not None and workload.memory > 0:  # -1 is no limit, as 0 is
            return Passed()
        return self.failed(
            workload, evidence(workload, "no memory limit: it can use all the memory of its host", "memory")
        )
