"""Rollback of a failed update (Deployment Strategies: rolling updates)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class RollbackStrategy(ContainerCheck):
    """A failed update stays deployed, partly or whole, until someone acts."""

    id = "rollback-strategy"
    title = "No automatic rollback"
    severity = Severity.LOW
    remedy = "docker service update --update-failure-action rollback"
    remedies: ClassVar[Mapping[str, str]] = {
        "swarm": "docker service update --update-failure-action rollback",
        "ecs": '"deploymentCircuitBreaker": {"enable": true, "rollback": true}',
    }
    looks_at = "rollback settings and the failure action of an update"
    cannot_see = "rollback by a deployment tool"
    article = ("Deployment Strategies: Rolling Updates",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source not in ("swarm", "ecs") or (workload.source == "ecs" and workload.replicas is None):
            return NotApplicable("the platform has no setting for rollback")
        if workload.rollback is not None or (
            workload.update is not None and workload.update.failure_action == "rollback"
        ):
            return Passed()
        return self.failed(workload, evidence(workload, "a failed update is not rolled back", "rollback", "update"))
