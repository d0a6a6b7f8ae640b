"""User namespaces (CIS Docker 2.9)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineUsernsRemap(EngineCheck):
    """Without user namespaces uid 0 in a container is uid 0 of the host after an escape."""

    id = "engine-userns-remap"
    title = "User namespaces are not used"
    severity = Severity.MEDIUM
    remedy = '"userns-remap": "default"'
    looks_at = "docker info: SecurityOptions; userns-remap in daemon.json"
    cannot_see = "command line options of the engine, if only daemon.json was read"
    cis = ("2.9",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.userns_remap is None:
            return Incomplete("not_told", "unknown: whether user namespaces are used")

        if not engine.userns_remap and not engine.rootless:
            return Failed(
                (
                    evidence(
                        workload,
                        "user namespace remapping is disabled: root in a container is root on the host",
                        "userns_remap",
                    ),
                )
            )
        return Passed()
