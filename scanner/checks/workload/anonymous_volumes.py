"""Anonymous volumes (article: volumes for persistent data)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class AnonymousVolumes(ContainerCheck):
    """Data in anonymous volumes is easily lost, because a new container gets a new volume."""

    id = "anonymous-volumes"
    title = "Data in anonymous volumes"
    severity = Severity.LOW
    remedy = "volumes: [data:/var/lib/data]"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "volumes: [data:/var/lib/data]",
        "docker": "docker run -v data:/var/lib/data",
        "swarm": "docker service update --mount-add type=volume,source=data,target=/var/lib/data",
        "ecs": '"volumes": [{"name": "data", "efsVolumeConfiguration": {…}}]',
        "marathon": '"volumes": [{"containerPath": "data", "persistent": {…}}]',
    }
    looks_at = "unnamed volumes, and volumes declared by the image"
    cannot_see = "whether the data is needed"
    article = ("Storage: Volumes for Persistent Data",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source == "kubernetes":
            return Passed()  # an emptyDir is deliberately deleted with its pod
        targets = [
            (number, mount)
            for number, mount in enumerate(workload.mounts)
            if mount.kind == "volume" and not mount.source and mount.target
        ]
        seen = [
            evidence(
                workload,
                f"{mount.target} is an anonymous volume: a new container does not get its data",
                f"mounts/{number}",
                "mounts",
                name=mount.target,
            )
            for number, mount in targets
        ]
        covered = {mount.target.rstrip("/") for mount in workload.mounts}
        declared = image.image.config.volumes if image is not None and workload.kind != "container" else ()
        seen += [
            evidence(
                workload,
                f"the image declares the volume {path} without a mount, so it becomes an anonymous volume",
                "mounts",
                name=path,
            )
            for path in declared
            if path.rstrip("/") not in covered
        ]
        return self.failed(workload, *seen) if seen else Passed()
