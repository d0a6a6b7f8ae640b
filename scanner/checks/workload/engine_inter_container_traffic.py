"""Containers on the default bridge can talk (CIS Docker 2.2)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineInterContainerTraffic(EngineCheck):
    """Containers on the default bridge can talk."""

    id = "engine-inter-container-traffic"
    title = "Containers on the default bridge can talk"
    severity = Severity.MEDIUM
    remedy = '"icc": false'
    looks_at = "icc in daemon.json, or the option of the bridge network"
    cannot_see = "how the engine was started, where daemon.json alone was read"
    cis = ("2.2",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.inter_container is None:
            return Incomplete("not_told", "neither daemon.json nor the bridge network tells about icc")

        if engine.inter_container:
            return Failed(
                (
                    evidence(
                        workload, "containers on the default bridge can talk to each other (icc)", "inter_container"
                    ),
                )
            )
        return Passed()
