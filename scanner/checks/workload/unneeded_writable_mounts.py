"""Writable bind mounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class UnneededWritableMounts(ContainerCheck):
    """An intruder can change host files through a writable bind mount, also those that the program only reads."""

    id = "unneeded-writable-mounts"
    title = "Writable bind mount"
    severity = Severity.LOW
    remedy = "volumeMounts: [{readOnly: true}]"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "volumeMounts: [{readOnly: true}]",
        "compose": "./conf:/etc/app:ro",
        "docker": "docker run -v /conf:/etc/app:ro",
        "swarm": "docker service update --mount-add type=bind,…,readonly",
        "ecs": '"mountPoints": [{"readOnly": true}]',
        "marathon": '"mode": "RO"',
    }
    looks_at = "bind mounts that are not read-only"
    cannot_see = "which mounts the program writes to"
    trivy = ("KSV-0023",)
    nsa = ("Immutable container file systems",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        seen = [
            evidence(
                workload,
                f"{mount.source or mount.target} is mounted writable at {mount.target}",
                f"mounts/{number}",
                "mounts",
                name=mount.target,
            )
            for number, mount in enumerate(workload.mounts)
            if mount.kind == "bind" and not mount.read_only
        ]
        return self.failed(workload, *seen) if seen else Passed()
