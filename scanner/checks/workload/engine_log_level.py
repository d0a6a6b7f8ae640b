"""The log level of the engine (CIS Docker 2.3)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineLogLevel(EngineCheck):
    """Below ``info`` events are missing from the log; ``debug`` may write secrets to it."""

    id = "engine-log-level"
    title = "The engine's log level is not info"
    severity = Severity.LOW
    remedy = '"log-level": "info"'
    looks_at = "log-level in daemon.json"
    cannot_see = "command line options of the engine, if only daemon.json was read"
    cis = ("2.3",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.log_level is None:
            return Incomplete("not_told", "only daemon.json contains the log level")

        if engine.log_level != "info":
            return Failed((evidence(workload, f"the log level is {engine.log_level}", "log_level"),))
        return Passed()
