"""The socket of a container engine (CIS Docker 5.32)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._host_paths import SOCKETS, reaches
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class DockerSocket(ContainerCheck):
    """A client of the engine can start a privileged container, so the socket amounts to root on the host."""

    id = "docker-socket"
    title = "Socket of the container engine is mounted"
    severity = Severity.CRITICAL
    remedy = "remove the hostPath volume"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "remove the hostPath volume",
        "compose": "remove the socket from volumes",
        "docker": "docker run without -v /var/run/docker.sock",
        "swarm": "remove the mount",
        "ecs": "remove the volume",
        "marathon": "remove the volume",
    }
    looks_at = "mounts of Docker, containerd, CRI-O and Podman sockets, and of a directory that holds one"
    cannot_see = "an engine that listens on TCP"
    cis = ("5.32",)
    trivy = ("KSV-0006",)
    kubesec = ("DockerSock",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        seen = [
            evidence(
                workload,
                f"{mount.source} is mounted: it gives control of the engine, and thus root on the host",
                f"mounts/{number}",
                "mounts",
                name=mount.source,
            )
            for number, mount in enumerate(workload.mounts)
            if mount.kind in ("bind", "npipe") and reaches(mount.source, SOCKETS)
        ]
        return self.failed(workload, *seen) if seen else Passed()
