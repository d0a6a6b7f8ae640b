"""no-new-privileges as the default (CIS Docker 2.14)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineNoNewPrivileges(EngineCheck):
    """Without the default each container has to set no-new-privileges itself, or setuid programs work in it."""

    id = "engine-no-new-privileges"
    title = "no-new-privileges is not the default"
    severity = Severity.MEDIUM
    remedy = '"no-new-privileges": true'
    looks_at = "no-new-privileges in daemon.json and docker info"
    cannot_see = "command line options of the engine, if only daemon.json was read"
    cis = ("2.14",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.no_new_privileges is None:
            return Incomplete("not_told", "only daemon.json contains the default of no-new-privileges")

        if not engine.no_new_privileges:
            return Failed(
                (
                    evidence(
                        workload,
                        "processes can gain privileges in every container that does not set no-new-privileges",
                        "no_new_privileges",
                    ),
                )
            )
        return Passed()
