"""A HostProcess container (Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class WindowsHostProcess(ContainerCheck):
    """A HostProcess container has full access to the Windows node: the equivalent of a privileged container."""

    id = "windows-host-process"
    title = "Windows HostProcess container"
    severity = Severity.CRITICAL
    remedy = "securityContext: {windowsOptions: {hostProcess: false}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {windowsOptions: {hostProcess: false}}",
    }
    looks_at = "windowsOptions.hostProcess of the container and of its pod"
    cannot_see = "what the process does on the node"
    pss = ("windowsHostProcess",)
    trivy = ("KSV-0103",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable("only Kubernetes has HostProcess containers")
        if workload.windows_host_process or workload.pod.windows_host_process:
            return self.failed(workload, evidence(workload, "runs as a HostProcess container", "windows_host_process"))
        return Passed()
