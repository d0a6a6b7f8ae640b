"""Swarm mode that is not needed (CIS Docker 5.1)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSwarmUnneeded(EngineCheck):
    """Swarm mode opens ports for management and gossip, which a single node does not need."""

    id = "engine-swarm-unneeded"
    title = "Swarm mode with a single node"
    severity = Severity.LOW
    remedy = "docker swarm leave --force"
    looks_at = "swarm mode and the number of nodes"
    cannot_see = "whether stacks are deployed to it"
    cis = ("5.1",)
    article = ("Orchestration: Choosing an Orchestrator",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.swarm_active is None:
            return Incomplete("not_told", "only docker info shows whether swarm mode is enabled")

        if engine.swarm_active and engine.swarm_nodes == 1:
            return Failed(
                (
                    evidence(
                        workload,
                        "swarm mode is enabled with a single node: its ports are open without need",
                        "swarm_active",
                    ),
                )
            )
        return Passed()
