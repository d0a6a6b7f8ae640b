"""No seccomp profile is set (Pod Security Standards: restricted)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import exempt_as_windows, minor
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class SeccompUnset(ContainerCheck):
    """Unlike Docker, Kubernetes runs pods unconfined unless a profile is set."""

    id = "seccomp-unset"
    title = "No seccomp profile is set"
    severity = Severity.MEDIUM
    remedy = "securityContext: {seccompProfile: {type: RuntimeDefault}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {seccompProfile: {type: RuntimeDefault}}",
    }
    looks_at = "seccompProfile of the container and its pod"
    cannot_see = "a kubelet with --seccomp-default"
    pss = ("seccompProfile_restricted",)
    trivy = ("KSV-0030", "KSV-0104")
    kubesec = ("SeccompAny",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable("the other platforms apply a seccomp profile by default")
        if exempt_as_windows(workload.pod):
            return NotApplicable("Windows has no seccomp")
        if minor(workload.pod) < 19:
            return NotApplicable("the rule applies from Kubernetes 1.19")
        profile = workload.seccomp or ""
        if profile == "RuntimeDefault" or profile == "Localhost" or profile.startswith("Localhost/"):
            return Passed()
        return self.failed(
            workload,
            evidence(workload, "no seccomp profile is set, and Kubernetes applies none by default", "seccomp", "pod"),
        )
