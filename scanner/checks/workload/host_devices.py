"""Host devices (CIS Docker 5.18)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostDevices(ContainerCheck):
    """Uses devices of the host."""

    id = "host-devices"
    title = "Uses devices of the host"
    severity = Severity.HIGH
    remedy = "remove devices"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove devices",
        "docker": "docker run without --device",
        "ecs": 'remove "devices"',
        "marathon": "remove the parameter device",
    }
    looks_at = "devices and device rules"
    cannot_see = "devices under a mounted /dev (the check sensitive-host-mounts)"
    cis = ("5.18",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is not None:
            return Passed()  # a pod gets devices from device plug-ins or block volumes, not from the host by name
        seen = [evidence(workload, f"it uses the device {name}", "devices", name=name) for name in workload.devices]
        return self.failed(workload, *seen) if seen else Passed()
