"""Live restore (CIS Docker 2.15)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineLiveRestore(EngineCheck):
    """Without live restore an urgent update of the engine means an outage, so that updates are put off."""

    id = "engine-live-restore"
    title = "Live restore is disabled"
    severity = Severity.LOW
    remedy = '"live-restore": true'
    looks_at = "live-restore in docker info and daemon.json"
    cannot_see = "command line options of the engine, if only daemon.json was read"
    cis = ("2.15",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.live_restore is None:
            return Incomplete("not_told", "unknown: whether live restore is enabled")

        if engine.swarm_active:
            return NotApplicable("live restore is not available in swarm mode")
        if not engine.live_restore:
            return Failed((evidence(workload, "containers stop when the engine restarts", "live_restore"),))
        return Passed()
