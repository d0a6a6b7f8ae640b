"""Privileged host ports (CIS Docker 5.8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class PrivilegedHostPorts(ContainerCheck):
    """Only root may listen below 1024; clients trust that a service there belongs to the host."""

    id = "privileged-host-ports"
    title = "Privileged host port"
    severity = Severity.LOW
    remedy = "hostPort of 1024 or more, or a Service"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "hostPort of 1024 or more, or a Service",
        "compose": 'ports: ["8443:8443"]',
        "docker": "docker run -p 8443:8443",
        "swarm": "docker service update --publish-add 8443:8443",
        "ecs": '"hostPort": 8443',
        "marathon": '"hostPort": 8443',
    }
    looks_at = "host ports below 1024"
    cannot_see = "other services on these ports"
    cis = ("5.8",)
    trivy = ("KSV-0117",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        seen = [
            evidence(
                workload,
                f"uses the privileged host port {port.host_port}",
                f"ports/{number}",
                "ports",
                name=str(port.host_port),
            )
            for number, port in enumerate(workload.ports)
            if port.host_port and port.host_port < 1024
        ]
        return self.failed(workload, *seen) if seen else Passed()
