"""Default ulimits (CIS Docker 2.8)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineDefaultUlimits(EngineCheck):
    """Without default ulimits one container can exhaust the host's file handles or processes."""

    id = "engine-default-ulimits"
    title = "The engine sets no default ulimits"
    severity = Severity.LOW
    remedy = '"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 64000, "Hard": 64000}}'
    looks_at = "default-ulimits in daemon.json"
    cannot_see = "limits set by the service manager (systemd)"
    cis = ("2.8",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.default_ulimits is None:
            return Incomplete("not_told", "only daemon.json contains the default ulimits")

        if not engine.default_ulimits:
            return Failed((evidence(workload, "no default ulimits are configured for containers", "default_ulimits"),))
        return Passed()
