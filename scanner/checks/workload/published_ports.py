"""Ports published on every address (CIS Docker 5.14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class PublishedPorts(ContainerCheck):
    """A port for local use becomes reachable from the network: Docker's own rules precede those of the host's
    firewall.
    """

    id = "published-ports"
    title = "Ports published on every address of the host"
    severity = Severity.MEDIUM
    remedy = 'ports: ["127.0.0.1:8080:8080"]'
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": 'ports: ["127.0.0.1:8080:8080"]',
        "docker": "docker run -p 127.0.0.1:8080:8080",
    }
    looks_at = "published ports and the addresses they are bound to"
    cannot_see = "a firewall in front of the host (Docker bypasses the host's own)"
    cis = ("5.14",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is not None:
            return NotApplicable("see the check host-ports for pods")
        if workload.source in ("swarm", "ecs", "marathon"):
            return NotApplicable("the platform publishes ports on its nodes without a choice of address")
        seen = [
            evidence(
                workload,
                f"port {port.container_port} is published on every address of the host",
                f"ports/{number}",
                "ports",
                name=str(port.container_port),
            )
            for number, port in enumerate(workload.ports)
            if port.host_port is not None and port.host_ip in ("", "0.0.0.0", "::")  # noqa: S104  a comparison
        ]
        return self.failed(workload, *seen) if seen else Passed()
