"""The primary group is 0 (NSA/CISA hardening)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload
from scanner.patterns import lazy

# Runtimes parse the number, so 00 is root as well.
_ZERO = lazy(r"[+-]?0+")


class RunAsRootGroup(ContainerCheck):
    """Files that belong to the root group, often writable by it, are within reach of the process."""

    id = "run-as-root-group"
    title = "Primary group is root"
    severity = Severity.LOW
    remedy = "securityContext: {runAsGroup: 10001}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {runAsGroup: 10001}",
        "compose": 'user: "10001:10001"',
        "docker": "docker run --user 10001:10001",
        "swarm": "docker service update --user 10001:10001",
        "ecs": '"user": "10001:10001"',
        "marathon": '{"key": "user", "value": "10001:10001"}',
    }
    looks_at = "runAsGroup, supplementalGroups and fsGroup, or the group part of the user setting and further groups"
    cannot_see = "the group of the image's own user"
    trivy = ("KSV-0116",)
    nsa = ("Non-root containers and rootless container engines",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.os == "windows":
            return NotApplicable("Windows has no groups by number")
        group = workload.run_as_group
        if group is None and workload.user and ":" in workload.user:
            text = workload.user.partition(":")[2].strip()
            group = 0 if text == "root" or _ZERO.fullmatch(text) else 1
        if group == 0:
            return self.failed(workload, evidence(workload, "the primary group is 0 (root)", "run_as_group", "user"))
        if group is None and workload.source == "kubernetes" and workload.user is not None:
            return self.failed(
                workload,
                evidence(
                    workload, "runAsUser is set without runAsGroup, so the primary group is 0", "run_as_group", "user"
                ),
            )
        # A hook of Compose can have a user and group of its own.
        for each in workload.probes:
            text = each.user.partition(":")[2].strip()
            if text == "root" or _ZERO.fullmatch(text):
                said = evidence(workload, f"the primary group of the hook {each.kind} is 0 (root)", each.kind)
                return self.failed(workload, said)
        if any(each.strip() == "root" or _ZERO.fullmatch(each.strip()) for each in workload.groups):
            return self.failed(workload, evidence(workload, "group 0 (root) is one of its further groups", "groups"))
        pod = workload.pod
        if pod is not None and 0 in (pod.fs_group, *pod.supplemental_groups):
            said = evidence(workload, "group 0 (root) is one of its further groups", "supplemental_groups", "fs_group")
            return self.failed(workload, said)
        return Passed()
