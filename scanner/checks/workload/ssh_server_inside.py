"""An SSH server in the container (CIS Docker 5.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload
from scanner.patterns import lazy

# As a program among the processes, with or without a path.
_SSHD = lazy(r"(?:^|[\s/])(?:sshd|dropbear)(?:$|[\s:])")


class SshServerInside(ContainerCheck):
    """A second way in, with keys and logs that the platform does not manage."""

    id = "ssh-server-inside"
    title = "SSH server in the container"
    severity = Severity.MEDIUM
    remedy = "remove it; use kubectl exec"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "remove it; use kubectl exec",
        "compose": "remove it; use docker exec",
        "docker": "remove it; use docker exec",
        "swarm": "remove it",
        "ecs": "remove it; use ECS Exec",
        "marathon": "remove it",
    }
    looks_at = "command, arguments, ports, and the processes of a running container"
    cannot_see = "for documents: a server that an entrypoint script starts"
    cis = ("5.7",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        words = (*(workload.command or ()), *(workload.arguments or ()), *(workload.processes or ()))
        found = next((word for word in words if _SSHD.search(word)), None)
        if found is not None:
            return self.failed(workload, evidence(workload, "starts sshd", "command", "arguments", name="sshd"))
        if any(port.container_port == 22 for port in workload.ports):
            return self.failed(workload, evidence(workload, "publishes port 22", "ports", name="22"))
        return Passed()
