"""minReadySeconds (Deployment Strategies: rolling updates)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class MinReadySeconds(ContainerCheck):
    """A rollout continues as soon as a new pod is ready once, even if the pod crashes a second later."""

    id = "min-ready-seconds"
    title = "minReadySeconds is 0"
    severity = Severity.LOW
    remedy = "minReadySeconds: 10"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "minReadySeconds: 10",
    }
    looks_at = "minReadySeconds"
    cannot_see = "how long the program takes to fail"
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
            evidence(workload, "a new pod counts as available immediately (minReadySeconds is 0)", "min_ready_seconds"),
        )
