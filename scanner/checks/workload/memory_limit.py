"""No memory limit (CIS Docker 5.11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class MemoryLimit(ContainerCheck):
    """Has no memory limit."""

    id = "memory-limit"
    title = "Has no memory limit"
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
    cannot_see = "a namespace's LimitRange"
    cis = ("5.11",)
    trivy = ("KSV-0018",)
    kubesec = ("containers[] .resources .limits .memory",)
    nsa = ("Resource policies",)
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.memory:
            return Passed()
        return self.failed(workload, evidence(workload, "it may use all the memory of its host", "memory"))
