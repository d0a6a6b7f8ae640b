"""An SSH server inside (CIS Docker 5.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload

_SSHD = re.compile(r"(?:^|[\s/])(?:sshd|dropbear)(?:$|[\s:])")


class SshServerInside(ContainerCheck):
    """Runs an SSH server inside."""

    id = "ssh-server-inside"
    title = "Runs an SSH server inside"
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
    looks_at = "command, arguments, published ports, and of a running container its processes"
    cannot_see = "a server that an entrypoint starts later, where a document is all there is"
    cis = ("5.7",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        words = (*(workload.command or ()), *(workload.arguments or ()), *(workload.processes or ()))
        found = next((word for word in words if _SSHD.search(word)), None)
        if found is not None:
            return self.failed(workload, evidence(workload, "it starts sshd", "command", "arguments", name="sshd"))
        if any(port.container_port == 22 for port in workload.ports):
            return self.failed(workload, evidence(workload, "it publishes port 22", "ports", name="22"))
        return Passed()
