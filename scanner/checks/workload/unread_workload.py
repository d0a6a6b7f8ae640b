"""What runs images in a way that is not known: custom resources, and services without what they run."""

from __future__ import annotations

from collections.abc import Mapping
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
    remedies: ClassVar[Mapping[str, str]] = {
        "ecs": "add its task definition: aws ecs describe-task-definition --task-definition NAME",
    }
    looks_at = (
        "custom resources that name an image but have no pod template and no containers; podSpecPatch, manifests "
        "inside of workflows, settings for pods that are defined elsewhere; ECS services without a task definition"
    )
    cannot_see = "custom resources that name no image"
    tags: ClassVar[tuple[str, ...]] = ("workload", "workload-hardening")

    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``WorkloadCheck.examine``."""
        if not workload.unread:
            return Passed()
        return Failed((evidence(workload, workload.unread),), remedy=self.remedies.get(workload.source, ""))
