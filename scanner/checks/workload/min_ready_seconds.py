"""minReadySeconds (Deployment Strategies: rolling updates)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class MinReadySeconds(ContainerCheck):
    """Counts a new pod as ready at once."""

    id = "min-ready-seconds"
    title = "Counts a new pod as ready at once"
    severity = Severity.LOW
    remedy = "minReadySeconds: 10"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "minReadySeconds: 10",
    }
    looks_at = "minReadySeconds"
    cannot_see = "how long the program needs"
    article = ("Deployment Strategies: Rolling Updates",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source != "kubernetes" or workload.kind not in ("Deployment", "StatefulSet", "DaemonSet"):
            return NotApplicable("only Kubernetes has minReadySeconds")
        if workload.update is not None and (workload.update.min_ready_seconds or 0) > 0:
            return Passed()
        return self.failed(
            workload,
            evidence(workload, "a new pod counts as ready at once (minReadySeconds is 0)", "min_ready_seconds"),
        )
