"""runAsNonRoot is not set (Pod Security Standards: restricted)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import relaxed_by_user_namespace
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class RunAsNonRootUnset(ContainerCheck):
    """With runAsNonRoot the kubelet refuses to start an image as root, even after the image was replaced."""

    id = "run-as-non-root-unset"
    title = "runAsNonRoot is not set"
    severity = Severity.MEDIUM
    remedy = "securityContext: {runAsNonRoot: true}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {runAsNonRoot: true}",
    }
    looks_at = "runAsNonRoot of the container and its pod"
    cannot_see = "the user of the image"
    pss = ("runAsNonRoot",)
    trivy = ("KSV-0012",)
    nsa = ("Non-root containers and rootless container engines",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable("only Kubernetes has runAsNonRoot")
        if relaxed_by_user_namespace(workload.pod):
            return Passed()
        if workload.run_as_non_root:
            return Passed()
        return self.failed(workload, evidence(workload, "runAsNonRoot is not true", "run_as_non_root", "pod"))
