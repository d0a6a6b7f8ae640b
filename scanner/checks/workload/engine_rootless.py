"""The engine runs as root (CIS Docker 2.1)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineRootless(EngineCheck):
    """The engine runs as root."""

    id = "engine-rootless"
    title = "The engine runs as root"
    severity = Severity.LOW
    remedy = "dockerd-rootless-setuptool.sh install"
    looks_at = "docker info: SecurityOptions"
    cannot_see = "whether the workloads need a rootful engine"
    cis = ("2.1",)
    article = ("Security: Run as Non-Root",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.rootless is None:
            return Incomplete("not_told", "only docker info tells whether the engine is rootless")

        if not engine.rootless:
            return Failed((evidence(workload, "the engine runs as root; it can run rootless", "rootless"),))
        return Passed()
