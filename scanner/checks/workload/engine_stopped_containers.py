"""Stopped containers (CIS Docker 6.2)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineStoppedContainers(EngineCheck):
    """Stopped containers keep their data, secrets included, and can be started again without review."""

    id = "engine-stopped-containers"
    title = "Many stopped containers on the host"
    severity = Severity.LOW
    remedy = "docker container prune"
    looks_at = "the numbers of all and of running containers"
    cannot_see = "which of them are needed"
    cis = ("6.2",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.containers is None or engine.containers_running is None:
            return Incomplete("not_told", "only docker info contains the numbers of containers")
        stopped = engine.containers - engine.containers_running
        if stopped > max(10, engine.containers_running):
            return Failed((evidence(workload, f"{stopped} stopped containers are kept", "storage_driver"),))
        return Passed()
