"""Parent control group (CIS Docker 5.25)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class CgroupParent(ContainerCheck):
    """Another parent control group may have other resource limits than the engine's default."""

    id = "cgroup-parent"
    title = "Custom parent control group"
    severity = Severity.MEDIUM
    remedy = "remove cgroup_parent"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove cgroup_parent",
        "docker": "docker run without --cgroup-parent",
        "marathon": "remove the parameter cgroup-parent",
    }
    looks_at = "the parent control group"
    cannot_see = "the limits of that group"
    cis = ("5.25",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if not workload.cgroup_parent:
            return Passed()
        return self.failed(
            workload, evidence(workload, f"the parent control group is {workload.cgroup_parent}", "cgroup_parent")
        )
