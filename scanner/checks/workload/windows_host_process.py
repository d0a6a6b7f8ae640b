"""A HostProcess container (Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class WindowsHostProcess(ContainerCheck):
    """Runs as a process of the Windows host."""

    id = "windows-host-process"
    title = "Runs as a process of the Windows host"
    severity = Severity.CRITICAL
    remedy = "securityContext: {windowsOptions: {hostProcess: false}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {windowsOptions: {hostProcess: false}}",
    }
    looks_at = "windowsOptions.hostProcess of the container and of its pod"
    cannot_see = "what runs on the node beside it"
    pss = ("windowsHostProcess",)
    trivy = ("KSV-0103",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable("only Kubernetes has HostProcess containers")
        if workload.windows_host_process or workload.pod.windows_host_process:
            return self.failed(workload, evidence(workload, "it is a HostProcess container", "windows_host_process"))
        return Passed()
