"""CPU limit or share (CIS Docker 5.12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class CpuLimit(ContainerCheck):
    """Without a CPU limit or share, one container can starve the others on its host."""

    id = "cpu-limit"
    title = "No CPU limit or share"
    severity = Severity.LOW
    remedy = 'resources: {requests: {cpu: 250m}, limits: {cpu: "1"}}'
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": 'resources: {requests: {cpu: 250m}, limits: {cpu: "1"}}',
        "compose": 'deploy: {resources: {limits: {cpus: "1"}}}',
        "docker": "docker run --cpus 1",
        "swarm": "docker service update --limit-cpu 1",
        "ecs": '"cpu": 1024',
        "marathon": '"cpus": 1',
    }
    looks_at = "CPU limit, CPU shares, CPU request"
    cannot_see = "a namespace's LimitRange"
    cis = ("5.12",)
    trivy = ("KSV-0011",)
    kubesec = ("LimitsCPU",)
    nsa = ("Resource policies",)
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if (workload.cpus or 0) > 0 or (workload.cpu_shares or 0) > 0:
            return Passed()
        if workload.source in ("kubernetes", "ecs") and workload.cpu_reservation:
            return Passed()  # a request is a guaranteed share on a busy node
        return self.failed(workload, evidence(workload, "has neither a CPU limit nor a share", "cpus"))
