"""Root in a container is root on the host (CIS Docker 2.9)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineUsernsRemap(EngineCheck):
    """Root in a container is root on the host."""

    id = "engine-userns-remap"
    title = "Root in a container is root on the host"
    severity = Severity.MEDIUM
    remedy = '"userns-remap": "default"'
    looks_at = "docker info: SecurityOptions; userns-remap in daemon.json"
    cannot_see = "how the engine was started, where daemon.json alone was read"
    cis = ("2.9",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.userns_remap is None:
            return Incomplete("not_told", "nothing tells whether users are remapped")

        if not engine.userns_remap and not engine.rootless:
            return Failed(
                (
                    evidence(
                        workload,
                        "user namespaces are not used: root in a container is root on the host",
                        "userns_remap",
                    ),
                )
            )
        return Passed()
