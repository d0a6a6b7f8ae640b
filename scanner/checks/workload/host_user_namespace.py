"""The user namespace of the host (CIS Docker 5.31)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostUserNamespace(ContainerCheck):
    """With ``userns_mode: host`` root in the container is root on the host even where the engine remaps users."""

    id = "host-user-namespace"
    title = "Opts out of user namespace remapping"
    severity = Severity.HIGH
    remedy = "remove: userns_mode: host"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove: userns_mode: host",
        "docker": "docker run without --userns host",
        "marathon": "remove the parameter userns",
    }
    looks_at = "the user namespace mode"
    cannot_see = "whether the engine remaps users (the check engine-userns-remap)"
    cis = ("5.31",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.userns_mode == "host" and workload.source != "kubernetes":
            return self.failed(
                workload, evidence(workload, "opts out of user namespace remapping (userns mode host)", "userns_mode")
            )
        return Passed()
