"""The engine runs as root (CIS Docker 2.1)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineRootless(EngineCheck):
    """A flaw in an engine that runs as root gives root on the host."""

    id = "engine-rootless"
    title = "The engine runs as root"
    severity = Severity.LOW
    remedy = "dockerd-rootless-setuptool.sh install"
    looks_at = "docker info: SecurityOptions"
    cannot_see = "whether workloads need features that a rootless engine lacks"
    cis = ("2.1",)
    article = ("Security: Run as Non-Root",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.rootless is None:
            return Incomplete("not_told", "only docker info shows whether the engine is rootless")

        if not engine.rootless:
            return Failed((evidence(workload, "the engine runs as root and not in rootless mode", "rootless"),))
        return Passed()
