"""Seccomp is disabled (CIS Docker 5.22, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import minor
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


def _allowed_annotation(value: str) -> bool:
    """https://kubernetes.io/docs/tutorials/security/seccomp/: the values of the annotations that Kubernetes read
    until 1.27.
    """
    return value in ("runtime/default", "docker/default") or value.startswith("localhost/")


class SeccompOff(ContainerCheck):
    """Without seccomp every system call of the kernel is available to an exploit."""

    id = "seccomp-off"
    title = "Seccomp is disabled"
    severity = Severity.HIGH
    remedy = "securityContext: {seccompProfile: {type: RuntimeDefault}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {seccompProfile: {type: RuntimeDefault}}",
        "compose": "remove: security_opt: [seccomp=unconfined]",
        "docker": "docker run without --security-opt seccomp=unconfined",
        "swarm": '"Privileges": {"Seccomp": {"Mode": "default"}}',
        "ecs": "remove seccomp:unconfined from dockerSecurityOptions",
        "marathon": "remove the parameter security-opt",
    }
    looks_at = "the seccomp profile"
    cannot_see = "what a custom profile permits"
    cis = ("5.22",)
    pss = ("seccompProfile_baseline",)
    trivy = ("KSV-0104",)
    kubesec = ("SeccompUnconfined",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        pod = workload.pod
        # The field seccompProfile came with 1.19; older versions used annotations.
        if pod is not None and minor(pod) < 19:
            refused = [value for value in pod.seccomp_annotations if not _allowed_annotation(value)]
            if refused:
                return self.failed(
                    workload, evidence(workload, f"an annotation sets the seccomp profile {refused[0]}", "pod")
                )
            return Passed()
        if workload.seccomp == "Unconfined" or (pod is not None and pod.seccomp == "Unconfined"):
            return self.failed(
                workload, evidence(workload, "runs without a seccomp profile", "security_opt/seccomp", "seccomp")
            )
        return Passed()
