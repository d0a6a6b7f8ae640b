"""Unsafe kernel parameters (Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import safe_sysctls
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class UnsafeSysctls(ContainerCheck):
    """Sysctls outside the safe set are not namespaced or can disturb other pods on the node."""

    id = "unsafe-sysctls"
    title = "Unsafe kernel parameters (sysctls)"
    severity = Severity.HIGH
    remedy = "remove it from securityContext.sysctls"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "remove it from securityContext.sysctls",
        "compose": "remove it from sysctls",
        "docker": "docker run without that --sysctl",
        "swarm": "remove it from Sysctls",
        "ecs": "remove it from systemControls",
        "marathon": "remove the parameter sysctl",
    }
    looks_at = "names of the sysctls that are set"
    cannot_see = "their values"
    pss = ("sysctls",)
    trivy = ("KSV-0026",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        allowed = safe_sysctls(workload)
        names = [name for name, _ in workload.sysctls] or list(workload.pod.sysctls if workload.pod else ())
        seen = [
            evidence(workload, f"sets {name}, which is not in the safe set", "sysctls", name=name)
            for name in names
            if name not in allowed
        ]
        return self.failed(workload, *seen) if seen else Passed()
