"""The user namespace of the host is asked for (CIS Docker 5.31)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostUserNamespace(ContainerCheck):
    """Switches the user namespace off."""

    id = "host-user-namespace"
    title = "Switches the user namespace off"
    severity = Severity.HIGH
    remedy = "remove: userns_mode: host"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove: userns_mode: host",
        "docker": "docker run without --userns host",
        "marathon": "remove the parameter userns",
    }
    looks_at = "the user namespace mode"
    cannot_see = "whether the engine remaps users at all (the check engine-userns-remap)"
    cis = ("5.31",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.userns_mode == "host" and workload.source != "kubernetes":
            return self.failed(
                workload, evidence(workload, "it switches user namespace remapping off for itself", "userns_mode")
            )
        return Passed()
