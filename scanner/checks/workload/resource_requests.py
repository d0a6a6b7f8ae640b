"""No requests (NSA/CISA: resource policies)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class ResourceRequests(ContainerCheck):
    """Asks for no resources."""

    id = "resource-requests"
    title = "Asks for no resources"
    severity = Severity.LOW
    remedy = "resources: {requests: {cpu: 250m, memory: 256Mi}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "resources: {requests: {cpu: 250m, memory: 256Mi}}",
        "swarm": "docker service update --reserve-memory 256M --reserve-cpu 0.25",
    }
    looks_at = "requests and reservations"
    cannot_see = "a namespace's LimitRange"
    trivy = ("KSV-0015", "KSV-0016")
    kubesec = ("containers[] .resources .requests .memory", "containers[] .resources .requests .cpu")
    nsa = ("Resource policies",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source not in ("kubernetes", "swarm"):
            return NotApplicable("requests are for schedulers: Kubernetes and Swarm")
        missing = [
            name
            for name, value, limit in (
                ("memory", workload.memory_reservation, workload.memory),
                ("cpu", workload.cpu_reservation, workload.cpus),
            )
            if value is None and limit is None  # a limit without a request is its own request
        ]
        if not missing:
            return Passed()
        text = f"it requests no {' and no '.join(missing)}: the scheduler does not know what it needs"
        return self.failed(workload, evidence(workload, text, "memory_reservation"))
