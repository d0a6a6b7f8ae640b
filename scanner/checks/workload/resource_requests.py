"""No requests (NSA/CISA: resource policies)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class ResourceRequests(ContainerCheck):
    """Without requests the scheduler overcommits nodes, and such pods are evicted first."""

    id = "resource-requests"
    title = "No resource requests"
    severity = Severity.LOW
    remedy = "resources: {requests: {cpu: 250m, memory: 256Mi}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "resources: {requests: {cpu: 250m, memory: 256Mi}}",
        "swarm": "docker service update --reserve-memory 256M --reserve-cpu 0.25",
    }
    looks_at = "resource requests and reservations"
    cannot_see = "the LimitRange of a namespace"
    trivy = ("KSV-0015", "KSV-0016")
    kubesec = ("RequestsMemory", "RequestsCPU")
    nsa = ("Resource policies",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source not in ("kubernetes", "swarm"):
            return NotApplicable("only Kubernetes and Swarm schedule by requests")
        missing = [
            name
            for name, value, limit in (
                ("memory", workload.memory_reservation, workload.memory),
                ("cpu", workload.cpu_reservation, workload.cpus),
            )
            if value is None and limit is None  # Kubernetes uses a limit as the request that is missing
        ]
        if not missing:
            return Passed()
        text = f"no request for {' or '.join(missing)}: the scheduler does not know what the workload needs"
        return self.failed(workload, evidence(workload, text, "memory_reservation"))
