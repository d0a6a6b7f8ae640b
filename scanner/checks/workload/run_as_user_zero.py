"""runAsUser is 0 (Pod Security Standards: restricted)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import minor, relaxed_by_user_namespace
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class RunAsUserZero(ContainerCheck):
    """The pod sets uid 0 explicitly, so that it is root whatever user the image has."""

    id = "run-as-user-zero"
    title = "runAsUser is 0"
    severity = Severity.MEDIUM
    remedy = "securityContext: {runAsUser: 10001}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {runAsUser: 10001}",
    }
    looks_at = "runAsUser of the container and of its pod"
    cannot_see = "the user of the image"
    pss = ("runAsUser",)
    trivy = ("KSV-0105",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        pod = workload.pod
        if pod is None:
            return NotApplicable("only Kubernetes has runAsUser; see the check runs-as-root")
        if minor(pod) < 23:
            return NotApplicable("the rule applies from Kubernetes 1.23")
        if relaxed_by_user_namespace(pod):
            return Passed()
        if pod.run_as_user == 0 or (workload.user or "").partition(":")[0] == "0":
            return self.failed(workload, evidence(workload, "runAsUser is 0", "user"))
        return Passed()
