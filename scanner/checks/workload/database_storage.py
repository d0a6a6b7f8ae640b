"""A database without a named volume (Storage: database considerations)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._databases import database_of
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class DatabaseStorage(ContainerCheck):
    """Data in the container's own layer is lost with the container."""

    id = "database-storage"
    title = "Runs a database without durable storage"
    severity = Severity.HIGH
    remedy = "volumeClaimTemplates, and a volumeMount at the data directory"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "volumeClaimTemplates, and a volumeMount at the data directory",
        "compose": "volumes: [data:/var/lib/postgresql/data]",
        "docker": "docker run -v data:/var/lib/postgresql/data",
        "swarm": "docker service update --mount-add type=volume,source=data,target=/var/lib/postgresql/data",
        "ecs": "an EFS volume at the data directory",
        "marathon": "a persistent volume at the data directory",
    }
    looks_at = "well-known database images by name, and the mounts at their data directories"
    cannot_see = "databases under other names, and how reliable a volume is"
    article = ("Storage: Database Considerations", "Storage: Volumes for Persistent Data")
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        known = database_of(workload, image)
        if known is None:
            return NotApplicable("not a known database")
        name, paths = known
        durable = [
            m
            for m in workload.mounts
            if (m.kind == "volume" and m.source and m.volume_type != "emptyDir") or m.kind in ("bind", "cluster")
        ]
        if any(
            f"{path}/".startswith(f"{m.target.rstrip('/')}/") or f"{m.target.rstrip('/')}/".startswith(f"{path}/")
            for path in paths
            for m in durable
        ):
            return Passed()
        return self.failed(
            workload,
            evidence(
                workload,
                f"{name} keeps its data at {' or '.join(paths)}, where no named or persistent volume is mounted",
                "mounts",
                name=name,
            ),
        )
