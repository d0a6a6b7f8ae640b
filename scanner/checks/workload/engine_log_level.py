"""The engine logs too little or too much (CIS Docker 2.3)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineLogLevel(EngineCheck):
    """The engine logs too little or too much."""

    id = "engine-log-level"
    title = "The engine logs too little or too much"
    severity = Severity.LOW
    remedy = '"log-level": "info"'
    looks_at = "log-level in daemon.json"
    cannot_see = "how the engine was started, where daemon.json alone was read"
    cis = ("2.3",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.log_level is None:
            return Incomplete("not_told", "only daemon.json tells the log level")

        if engine.log_level != "info":
            return Failed((evidence(workload, "the log level is not info", "log_level"),))
        return Passed()
