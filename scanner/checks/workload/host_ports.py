"""hostPort (Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostPorts(ContainerCheck):
    """Takes a port of the node."""

    id = "host-ports"
    title = "Takes a port of the node"
    severity = Severity.MEDIUM
    remedy = "remove hostPort; use a Service"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "remove hostPort; use a Service",
    }
    looks_at = "hostPort of the container"
    cannot_see = "ports that hostNetwork opens without naming them"
    pss = ("hostPorts",)
    trivy = ("KSV-0024",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable("the check published-ports judges the others")
        seen = [
            evidence(
                workload,
                f"it takes port {port.host_port} of the node",
                f"ports/{number}",
                "ports",
                name=str(port.host_port),
            )
            for number, port in enumerate(workload.ports)
            if port.host_port
        ]
        return self.failed(workload, *seen) if seen else Passed()
