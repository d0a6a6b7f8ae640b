"""Container sprawl (CIS Docker 6.2)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineStoppedContainers(EngineCheck):
    """The host keeps containers that do not run."""

    id = "engine-stopped-containers"
    title = "The host keeps containers that do not run"
    severity = Severity.LOW
    remedy = "docker container prune"
    looks_at = "numbers of containers"
    cannot_see = "which of them are needed"
    cis = ("6.2",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.containers is None or engine.containers_running is None:
            return Incomplete("not_told", "only docker info counts containers")
        stopped = engine.containers - engine.containers_running
        if stopped > max(10, engine.containers_running):
            return Failed((evidence(workload, f"{stopped} containers do not run", "storage_driver"),))
        return Passed()
