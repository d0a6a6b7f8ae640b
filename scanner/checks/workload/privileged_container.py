"""A privileged container (CIS Docker 5.5, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class PrivilegedContainer(ContainerCheck):
    """A privileged container amounts to root on the host: it can load kernel modules and write to the host's disks."""

    id = "privileged-container"
    title = "Privileged container"
    severity = Severity.CRITICAL
    remedy = "securityContext: {privileged: false}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {privileged: false}",
        "compose": "remove: privileged: true",
        "docker": "docker run without --privileged",
        "swarm": "a service cannot be privileged",
        "ecs": '"privileged": false',
        "marathon": '"privileged": false',
    }
    looks_at = "the privileged setting of the container and its lifecycle hooks"
    cannot_see = "privileges added later with docker exec --privileged"
    cis = ("5.5",)
    pss = ("privileged",)
    trivy = ("KSV-0017",)
    kubesec = ("Privileged",)
    nsa = ("Kubernetes Pod security",)
    article = ("Security: Run as Non-Root",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if not workload.privileged:
            return Passed()
        return self.failed(
            workload, evidence(workload, "runs privileged: all capabilities, all devices, no seccomp", "privileged")
        )
