"""Host devices (CIS Docker 5.18)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import GPU, Workload


class HostDevices(ContainerCheck):
    """A block device gives the host's file system, /dev/mem its memory."""

    id = "host-devices"
    title = "Host devices are exposed"
    severity = Severity.HIGH
    remedy = "remove devices"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove devices",
        "docker": "docker run without --device",
        "ecs": 'remove "devices"',
        "marathon": "remove the parameter device",
    }
    looks_at = "devices, device cgroup rules, and requested devices such as GPUs"
    cannot_see = "devices under a mounted /dev (the check sensitive-host-mounts)"
    cis = ("5.18",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is not None:
            return Passed()  # pods get devices from device plugins or as block volumes, never by a path of the host
        seen = [evidence(workload, f"uses the host device {name}", "devices", name=name) for name in workload.devices]
        if not seen:
            return Passed()
        # A GPU is usually needed, and gives no access to the host's data. Its driver is a large part of the kernel.
        only_gpus = all(name.startswith(f"{GPU}:") for name in workload.devices)
        found = self.failed(workload, *seen)
        return replace(found, severity=Severity.LOW) if only_gpus else found
