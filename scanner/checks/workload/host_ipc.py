"""Shares the shared memory of the host (CIS Docker 5.17, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostIpc(ContainerCheck):
    """Shares the shared memory of the host."""

    id = "host-ipc"
    title = "Shares the shared memory of the host"
    severity = Severity.HIGH
    remedy = "hostIPC: false"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "hostIPC: false",
        "compose": "remove: ipc: host",
        "docker": "docker run without --ipc host",
        "ecs": 'remove "ipcMode"',
        "marathon": "remove the parameter ipc",
    }
    looks_at = "the ipc mode"
    cannot_see = "what the program does with it"
    cis = ("5.17",)
    pss = ("hostNamespaces",)
    trivy = ("KSV-0008",)
    kubesec = (".spec .hostIPC == true",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.ipc_mode != "host":
            return Passed()
        return self.failed(workload, evidence(workload, "it reads and writes the host's shared memory", "ipc_mode"))
