"""no-new-privileges is not set (CIS Docker 5.26, Pod Security Standards: restricted)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import exempt_as_windows, minor
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class PrivilegeEscalation(ContainerCheck):
    """Without no-new-privileges an attacker inside the container can become root with a setuid program of the image."""

    id = "privilege-escalation"
    title = "Privilege escalation is allowed"
    severity = Severity.MEDIUM
    remedy = "securityContext: {allowPrivilegeEscalation: false}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {allowPrivilegeEscalation: false}",
        "compose": 'security_opt: ["no-new-privileges:true"]',
        "docker": "docker run --security-opt no-new-privileges",
        "swarm": '"Privileges": {"NoNewPrivileges": true}',
        "ecs": '"dockerSecurityOptions": ["no-new-privileges"]',
        "marathon": '{"key": "security-opt", "value": "no-new-privileges"}',
    }
    looks_at = "allowPrivilegeEscalation: false, or no-new-privileges"
    cannot_see = "for documents: the engine's default (dockerd --no-new-privileges)"
    cis = ("5.26",)
    pss = ("allowPrivilegeEscalation",)
    trivy = ("KSV-0001",)
    kubesec = ("AllowPrivilegeEscalation",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.os == "windows":
            return NotApplicable("Windows has no such setting")
        if workload.pod is not None and exempt_as_windows(workload.pod):
            return NotApplicable("Windows has no such setting")
        if workload.pod is not None and minor(workload.pod) < 8:
            return NotApplicable("the rule applies from Kubernetes 1.8")
        if workload.allow_privilege_escalation is False:
            return Passed()
        return self.failed(
            workload,
            evidence(
                workload,
                "processes can gain privileges, for example with setuid programs",
                "allow_privilege_escalation",
            ),
        )
