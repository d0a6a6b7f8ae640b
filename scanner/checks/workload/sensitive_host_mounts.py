"""Sensitive host directories (CIS Docker 5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._host_paths import is_sensitive
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class SensitiveHostMounts(ContainerCheck):
    """These directories hold credentials, or what the host executes: write access to them is root on the host."""

    id = "sensitive-host-mounts"
    title = "Sensitive host directory is mounted"
    severity = Severity.HIGH
    remedy = "use a volume, a configMap or a secret"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "use a volume, a configMap or a secret",
        "compose": "use a named volume",
        "docker": "use a named volume",
        "swarm": "use a named volume",
        "ecs": "use an EFS or Docker volume",
        "marathon": "use a persistent volume",
    }
    looks_at = (
        "bind mounts of /, /boot, /dev, /etc, /lib, /proc, /sys, /usr, /var/lib/docker, "
        "/var/lib/kubelet, /root, /home, and of paths below them"
    )
    cannot_see = "symbolic links on the host"
    cis = ("5.6",)
    trivy = ("KSV-0121",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        seen = [
            evidence(
                workload,
                f"the host's {mount.source} is mounted{'' if mount.read_only else ' writable'}",
                f"mounts/{number}",
                "mounts",
                name=mount.source,
            )
            for number, mount in enumerate(workload.mounts)
            if mount.kind == "bind" and is_sensitive(mount.source)
        ]
        return self.failed(workload, *seen) if seen else Passed()
