"""procMount in the restricted level (Pod Security Standards: restricted, from v1.35)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import minor
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class ProcMountRestricted(ContainerCheck):
    """The baseline level permits this in a user namespace; the restricted level does not."""

    id = "proc-mount-restricted"
    title = "/proc is not masked (restricted level)"
    severity = Severity.LOW
    remedy = "securityContext: {procMount: Default}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {procMount: Default}",
    }
    looks_at = "procMount"
    cannot_see = "what the program reads there"
    pss = ("procMount_restricted",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        pod = workload.pod
        if pod is None or minor(pod) < 35:
            return NotApplicable("the rule applies from Kubernetes 1.35")
        if workload.proc_mount in (None, "", "Default"):
            return Passed()
        return self.failed(workload, evidence(workload, f"procMount is {workload.proc_mount}", "proc_mount"))
