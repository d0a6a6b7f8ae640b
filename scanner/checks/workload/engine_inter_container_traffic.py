"""Traffic between containers on the default bridge (CIS Docker 2.2)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineInterContainerTraffic(EngineCheck):
    """With icc every container on the default bridge can connect to every port of the others."""

    id = "engine-inter-container-traffic"
    title = "Unrestricted traffic between containers on the default bridge"
    severity = Severity.MEDIUM
    remedy = '"icc": false'
    looks_at = "icc in daemon.json, or com.docker.network.bridge.enable_icc of the bridge network"
    cannot_see = "command line options of the engine, if only daemon.json was read"
    cis = ("2.2",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.inter_container is None:
            return Incomplete(
                "not_told", "unknown: icc is neither in daemon.json nor among the options of the bridge network"
            )

        if engine.inter_container:
            return Failed(
                (
                    evidence(
                        workload,
                        "containers on the default bridge can connect to each other (icc is enabled)",
                        "inter_container",
                    ),
                )
            )
        return Passed()
