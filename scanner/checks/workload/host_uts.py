"""The UTS namespace of the host (CIS Docker 5.21)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostUts(ContainerCheck):
    """Processes with CAP_SYS_ADMIN could change the name of the host."""

    id = "host-uts"
    title = "Shares the host's UTS namespace"
    severity = Severity.MEDIUM
    remedy = "remove: uts: host"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove: uts: host",
        "docker": "docker run without --uts host",
        "marathon": "remove the parameter uts",
    }
    looks_at = "the UTS mode"
    cannot_see = "pods with hostNetwork, which share the host's UTS namespace too"
    cis = ("5.21",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.uts_mode != "host":
            return Passed()
        return self.failed(
            workload,
            evidence(workload, "shares the host's UTS namespace, so it could change the host name", "uts_mode"),
        )
