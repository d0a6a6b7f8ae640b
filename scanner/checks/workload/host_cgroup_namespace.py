"""The cgroup namespace of the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostCgroupNamespace(ContainerCheck):
    """Processes see the cgroups of the whole host, and with a writable /sys/fs/cgroup could change their limits."""

    id = "host-cgroup-namespace"
    title = "Shares the host's cgroup namespace"
    severity = Severity.MEDIUM
    remedy = "remove: cgroup: host"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove: cgroup: host",
        "docker": "docker run without --cgroupns host",
        "marathon": "remove the parameter cgroupns",
    }
    looks_at = "the mode of the cgroup namespace"
    cannot_see = "for documents: an engine whose default is the host's (cgroup v1)"
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.cgroup_mode != "host":
            return Passed()
        return self.failed(
            workload,
            evidence(workload, "shares the host's cgroup namespace: it sees the whole host's cgroups", "cgroup_mode"),
        )
