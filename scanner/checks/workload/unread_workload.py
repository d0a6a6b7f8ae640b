"""A custom resource that runs images in a way that is not known."""

from __future__ import annotations

from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ImageSubject, WorkloadCheck
from scanner.model.finding import Failed, Outcome, Passed, Severity
from scanner.model.workload import Workload


class UnreadWorkload(WorkloadCheck):
    """What was not read must not look like something that was read and is fine."""

    id = "unread-workload"
    title = "Kind that cannot be read"
    severity = Severity.MEDIUM
    remedy = "audit the pods that it creates: kubectl get pods -o json | dockwarden audit kubernetes:-"
    looks_at = "custom resources that name an image but have no pod template and no containers, and podSpecPatch"
    cannot_see = "custom resources that name no image"
    tags: ClassVar[tuple[str, ...]] = ("workload", "workload-hardening")

    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``WorkloadCheck.examine``."""
        return Failed((evidence(workload, workload.unread),)) if workload.unread else Passed()
