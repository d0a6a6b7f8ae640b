"""The primary group is 0 (NSA/CISA hardening)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class RunAsRootGroup(ContainerCheck):
    """Runs with the root group."""

    id = "run-as-root-group"
    title = "Runs with the root group"
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
    looks_at = "runAsGroup, or the group in the user setting"
    cannot_see = "the group of the image's own user"
    trivy = ("KSV-0021", "KSV-0116")
    nsa = ("Non-root containers and rootless container engines",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        group = workload.run_as_group
        if group is None and workload.user and ":" in workload.user:
            text = workload.user.partition(":")[2]
            group = 0 if text in ("0", "root") else 1
        if group == 0:
            return self.failed(workload, evidence(workload, "its primary group is 0 (root)", "run_as_group", "user"))
        if group is None and workload.source == "kubernetes" and workload.user is not None:
            return self.failed(
                workload,
                evidence(
                    workload, "runAsUser is set without runAsGroup, so its primary group is 0", "run_as_group", "user"
                ),
            )
        return Passed()
