"""hostPort (Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostPorts(ContainerCheck):
    """A hostPort bypasses Services and most network policies."""

    id = "host-ports"
    title = "hostPort"
    severity = Severity.MEDIUM
    remedy = "remove hostPort; use a Service"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "remove hostPort; use a Service",
    }
    looks_at = "hostPort of the container"
    cannot_see = "ports that a pod with hostNetwork opens without declaring them"
    pss = ("hostPorts",)
    trivy = ("KSV-0024",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable("only Kubernetes has hostPort; see the check published-ports")
        seen = [
            evidence(
                workload,
                f"uses hostPort {port.host_port}",
                f"ports/{number}",
                "ports",
                name=str(port.host_port),
            )
            for number, port in enumerate(workload.ports)
            if port.host_port
        ]
        return self.failed(workload, *seen) if seen else Passed()
