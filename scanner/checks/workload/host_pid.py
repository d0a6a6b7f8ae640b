"""The PID namespace of the host (CIS Docker 5.16, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostPid(ContainerCheck):
    """Processes of the host are visible, with the environment of those of the same user, and can be signalled."""

    id = "host-pid"
    title = "Shares the host's PID namespace"
    severity = Severity.HIGH
    remedy = "hostPID: false"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "hostPID: false",
        "compose": "remove: pid: host",
        "docker": "docker run without --pid host",
        "ecs": 'remove "pidMode"',
        "marathon": "remove the parameter pid",
    }
    looks_at = "the PID mode"
    cannot_see = "what the program does with it"
    cis = ("5.16",)
    pss = ("hostNamespaces",)
    trivy = ("KSV-0010",)
    kubesec = ("HostPID",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pid_mode != "host":
            return Passed()
        return self.failed(
            workload,
            evidence(
                workload, "shares the host's PID namespace: it can see and signal the host's processes", "pid_mode"
            ),
        )
