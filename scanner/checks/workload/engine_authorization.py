"""Authorization plugins (CIS Docker 2.12)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineAuthorization(EngineCheck):
    """Without an authorization plugin every client of the engine is root on the host."""

    id = "engine-authorization"
    title = "No authorization plugin restricts clients of the engine"
    severity = Severity.MEDIUM
    remedy = '"authorization-plugins": ["dockwarden"]'
    looks_at = "authorization plugins in docker info and daemon.json"
    cannot_see = "what a plugin permits"
    cis = ("2.12",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.authorization_plugins is None:
            return Incomplete("not_told", "unknown: the authorization plugins of the engine")

        if not engine.authorization_plugins:
            return Failed(
                (
                    evidence(
                        workload,
                        "no authorization plugin is configured: every client can do everything",
                        "authorization_plugins",
                    ),
                )
            )
        return Passed()
