"""Live restore (CIS Docker 2.15)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineLiveRestore(EngineCheck):
    """Containers stop with the engine."""

    id = "engine-live-restore"
    title = "Containers stop with the engine"
    severity = Severity.LOW
    remedy = '"live-restore": true'
    looks_at = "live restore of docker info and daemon.json"
    cannot_see = "nothing beyond it"
    cis = ("2.15",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.live_restore is None:
            return Incomplete("not_told", "nothing tells about live restore")

        if engine.swarm_active:
            return NotApplicable("live restore does not work in a swarm")
        if not engine.live_restore:
            return Failed((evidence(workload, "containers stop when the engine restarts", "live_restore"),))
        return Passed()
