"""SELinux options (CIS Docker 5.3, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from scanner.checks._pod_security import selinux_types
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import SelinuxOptions, Workload


def _problems(options: SelinuxOptions, types: frozenset[str]) -> Iterator[str]:
    if options.type == "disabled":
        yield "disables SELinux (label=disable)"
    elif options.type not in types:
        yield f"sets the SELinux type {options.type}"
    if options.user:
        yield f"sets the SELinux user {options.user}"
    if options.role:
        yield f"sets the SELinux role {options.role}"


class SelinuxLabels(ContainerCheck):
    """Another type, user or role may lift the confinement of container_t; disabled labels lift it entirely."""

    id = "selinux-labels"
    title = "SELinux confinement is weakened"
    severity = Severity.HIGH
    remedy = "remove seLinuxOptions.user and role; seLinuxOptions: {type: container_t}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "remove seLinuxOptions.user and role; seLinuxOptions: {type: container_t}",
        "compose": "remove: security_opt: [label=disable]",
        "docker": "docker run without --security-opt label=disable",
        "swarm": "remove SELinuxContext",
        "ecs": "remove label:disable from dockerSecurityOptions",
        "marathon": "remove the parameter security-opt",
    }
    looks_at = "SELinux options: type, user, role, label=disable"
    cannot_see = "whether the host has SELinux"
    cis = ("5.3",)
    pss = ("seLinuxOptions",)
    trivy = ("KSV-0025",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        seen = [
            evidence(workload, message, "selinux")
            for options in (workload.selinux, workload.pod.selinux if workload.pod else None)
            if options is not None
            for message in _problems(options, selinux_types(workload))
        ]
        return self.failed(workload, *dict.fromkeys(seen)) if seen else Passed()
