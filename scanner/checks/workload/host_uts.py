"""The UTS namespace of the host (CIS Docker 5.21)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostUts(ContainerCheck):
    """Shares the host name of the host."""

    id = "host-uts"
    title = "Shares the host name of the host"
    severity = Severity.MEDIUM
    remedy = "remove: uts: host"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove: uts: host",
        "docker": "docker run without --uts host",
        "marathon": "remove the parameter uts",
    }
    looks_at = "the UTS mode"
    cannot_see = "Kubernetes has no such setting beside hostNetwork"
    cis = ("5.21",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.uts_mode != "host":
            return Passed()
        return self.failed(workload, evidence(workload, "it can change the host's name", "uts_mode"))
