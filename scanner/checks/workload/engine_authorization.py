"""Authorization plug-ins (CIS Docker 2.12)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineAuthorization(EngineCheck):
    """Every client of the engine may do everything."""

    id = "engine-authorization"
    title = "Every client of the engine may do everything"
    severity = Severity.MEDIUM
    remedy = '"authorization-plugins": ["dockwarden"]'
    looks_at = "authorization plug-ins of docker info and daemon.json"
    cannot_see = "what a plug-in allows"
    cis = ("2.12",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.authorization_plugins is None:
            return Incomplete("not_told", "nothing tells which authorization plug-ins there are")

        if not engine.authorization_plugins:
            return Failed(
                (evidence(workload, "no authorization plug-in decides what clients may do", "authorization_plugins"),)
            )
        return Passed()
