"""Seccomp is switched off (CIS Docker 5.22, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


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
        if workload.seccomp == "Unconfined" or (workload.pod is not None and workload.pod.seccomp == "Unconfined"):
            return self.failed(workload, evidence(workload, "it runs without a seccomp profile", "seccomp"))
        return Passed()
