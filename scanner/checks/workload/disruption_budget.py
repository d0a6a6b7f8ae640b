"""No PodDisruptionBudget (Lessons Learned: plan for failure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class DisruptionBudget(ContainerCheck):
    """Draining nodes may evict all replicas at the same time."""

    id = "disruption-budget"
    title = "No PodDisruptionBudget"
    severity = Severity.LOW
    remedy = "kind: PodDisruptionBudget, spec: {maxUnavailable: 1, selector: …}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "kind: PodDisruptionBudget, spec: {maxUnavailable: 1, selector: …}",
    }
    looks_at = "PodDisruptionBudgets among the documents"
    cannot_see = "budgets that are only in the cluster"
    article = ("Lessons Learned: Plan for failure",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source != "kubernetes" or workload.kind not in ("Deployment", "StatefulSet", "ReplicaSet"):
            return NotApplicable("only replicated pods have a PodDisruptionBudget")
        if (workload.replicas if workload.replicas is not None else 1) < 2:
            return NotApplicable("a single replica cannot be protected by a budget")
        if workload.disruption_budget:
            return Passed()
        return self.failed(
            workload, evidence(workload, "no PodDisruptionBudget in these documents selects it", "disruption_budget")
        )
