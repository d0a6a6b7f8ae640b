"""The IPC namespace of the host (CIS Docker 5.17, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostIpc(ContainerCheck):
    """Processes can read and write the shared memory of every process on the host."""

    id = "host-ipc"
    title = "Shares the host's IPC namespace"
    severity = Severity.HIGH
    remedy = "hostIPC: false"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "hostIPC: false",
        "compose": "remove: ipc: host",
        "docker": "docker run without --ipc host",
        "ecs": 'remove "ipcMode"',
        "marathon": "remove the parameter ipc",
    }
    looks_at = "the IPC mode"
    cannot_see = "what the program does with it"
    cis = ("5.17",)
    pss = ("hostNamespaces",)
    trivy = ("KSV-0008",)
    kubesec = ("HostIPC",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.ipc_mode != "host":
            return Passed()
        return self.failed(
            workload, evidence(workload, "shares the host's IPC namespace, including its shared memory", "ipc_mode")
        )
