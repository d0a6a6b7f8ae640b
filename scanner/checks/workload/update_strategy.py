"""The update strategy (Deployment Strategies: rolling updates)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload
from scanner.patterns import lazy

_ROLLED = ("service", "Deployment", "StatefulSet", "DaemonSet", "app", "task-definition")
_COUNT = lazy(r"([0-9]{1,9})(%?)")


class UpdateStrategy(ContainerCheck):
    """An update that replaces all instances at once, or continues after failures, turns a bad image into an outage."""

    id = "update-strategy"
    title = "Risky update strategy"
    severity = Severity.LOW
    remedy = "strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}",
        "compose": "deploy: {update_config: {parallelism: 1, order: start-first, failure_action: rollback}}",
        "swarm": "docker service update --update-parallelism 1 --update-order start-first "
        "--update-failure-action rollback",
        "ecs": '"deploymentConfiguration": {"minimumHealthyPercent": 100, "maximumPercent": 200}',
        "marathon": '"upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.2}',
    }
    looks_at = "update settings: type, parallelism, order, failure action, maxUnavailable"
    cannot_see = "the strategy of a deployment tool"
    article = ("Deployment Strategies: Rolling Updates",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.kind not in _ROLLED:
            return NotApplicable("this kind of workload has no rollout")
        if workload.source == "ecs" and workload.update is None and workload.replicas is None:
            return NotApplicable("no service among the documents runs this task definition")
        if workload.source == "compose" and workload.update is None:
            return NotApplicable("docker compose has no rolling updates (docker stack has)")
        update = workload.update
        if update is None:
            if workload.source == "kubernetes":
                return Passed()
            return self.failed(workload, evidence(workload, "no update strategy is set", "update"))
        seen = []
        if update.type in ("Recreate", "OnDelete"):
            seen.append(evidence(workload, f"an update stops all instances at once ({update.type})", "update"))
        elif _is_all(update.max_unavailable, workload.replicas):
            text = f"an update stops all instances at once (at most {update.max_unavailable} unavailable)"
            seen.append(evidence(workload, text, "update"))
        if workload.source in ("swarm", "compose") and (
            update.parallelism == "0"
            or (update.order != "start-first" and _is_all(update.parallelism, workload.replicas))
        ):
            text = f"an update replaces every task at once (parallelism {update.parallelism})"
            seen.append(evidence(workload, text, "update"))
        if update.failure_action == "continue":
            seen.append(evidence(workload, "a failed update continues (failure_action continue)", "update"))
        return self.failed(workload, *seen) if seen else Passed()


def _is_all(count: str, replicas: int | None) -> bool:
    """Return whether a count or a percentage is all of several replicas. A single one is another check's finding."""
    found = _COUNT.fullmatch(count)
    if found is None:
        return False
    if found[2]:
        return int(found[1]) >= 100
    return replicas is not None and 1 < replicas <= int(found[1])
