"""Mount propagation to the host (CIS Docker 5.20)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class SharedMountPropagation(ContainerCheck):
    """What the container mounts appears on the host and in other containers that share the mount."""

    id = "shared-mount-propagation"
    title = "Shared mount propagation"
    severity = Severity.MEDIUM
    remedy = "remove mountPropagation: Bidirectional"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "remove mountPropagation: Bidirectional",
        "compose": "remove propagation: shared",
        "docker": "docker run -v without :shared",
        "swarm": "remove Propagation",
        "marathon": "remove :shared",
    }
    looks_at = "mount propagation"
    cannot_see = "what the program actually mounts"
    cis = ("5.20",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        seen = [
            evidence(
                workload,
                f"mounts below {mount.target} propagate to the host",
                f"mounts/{number}",
                "mounts",
                name=mount.target,
            )
            for number, mount in enumerate(workload.mounts)
            if mount.propagation in ("shared", "rshared")
        ]
        return self.failed(workload, *seen) if seen else Passed()
