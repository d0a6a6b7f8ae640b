"""Containers may gain privileges by default (CIS Docker 2.14)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineNoNewPrivileges(EngineCheck):
    """Containers may gain privileges by default."""

    id = "engine-no-new-privileges"
    title = "Containers may gain privileges by default"
    severity = Severity.MEDIUM
    remedy = '"no-new-privileges": true'
    looks_at = "no-new-privileges in daemon.json and docker info"
    cannot_see = "how the engine was started, where daemon.json alone was read"
    cis = ("2.14",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.no_new_privileges is None:
            return Incomplete("not_told", "only daemon.json tells whether no-new-privileges is the default")

        if not engine.no_new_privileges:
            return Failed((evidence(workload, "no-new-privileges is not the default", "no_new_privileges"),))
        return Passed()
