"""The engine runs experimental features (CIS Docker 2.18)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineExperimental(EngineCheck):
    """Experimental features change without notice and are not meant for production."""

    id = "engine-experimental"
    title = "Experimental engine features are enabled"
    severity = Severity.LOW
    remedy = '"experimental": false'
    looks_at = "experimental in docker info and daemon.json"
    cannot_see = "command line options of the engine, if only daemon.json was read"
    cis = ("2.18",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.experimental is None:
            return Incomplete("not_told", "unknown: whether experimental features are enabled")

        if engine.experimental:
            return Failed((evidence(workload, "experimental features are enabled", "experimental"),))
        return Passed()
