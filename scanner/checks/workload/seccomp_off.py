"""Seccomp is switched off (CIS Docker 5.22, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import minor
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


def _allowed_annotation(value: str) -> bool:
    """https://kubernetes.io/docs/tutorials/security/seccomp/: the annotations until Kubernetes 1.27."""
    return value in ("runtime/default", "docker/default") or value.startswith("localhost/")


class SeccompOff(ContainerCheck):
    """Switches seccomp off."""

    id = "seccomp-off"
    title = "Switches seccomp off"
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
    cannot_see = "what a profile of your own allows"
    cis = ("5.22",)
    pss = ("seccompProfile_baseline",)
    trivy = ("KSV-0104",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        pod = workload.pod
        if pod is not None and minor(pod) < 19:  # the fields came with 1.19; before, annotations said it
            refused = [value for value in pod.seccomp_annotations if not _allowed_annotation(value)]
            if refused:
                return self.failed(workload, evidence(workload, f"an annotation asks for seccomp {refused[0]}", "pod"))
            return Passed()
        if workload.seccomp == "Unconfined" or (pod is not None and pod.seccomp == "Unconfined"):
            return self.failed(workload, evidence(workload, "it runs without a seccomp profile", "seccomp"))
        return Passed()
