"""Swarm managers (CIS Docker 7.1)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSwarmManagers(EngineCheck):
    """The swarm has too many managers."""

    id = "engine-swarm-managers"
    title = "The swarm has too many managers"
    severity = Severity.LOW
    remedy = "docker node demote NODE"
    looks_at = "the number of managers"
    cannot_see = "how they are spread"
    cis = ("7.1",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.swarm_active:
            return NotApplicable("it is in no swarm")
        if engine.swarm_managers is None:
            return Incomplete("not_told", "docker info does not tell the number of managers")
        if engine.swarm_managers > 7 or (engine.swarm_managers > 1 and engine.swarm_managers % 2 == 0):
            return Failed(
                (
                    evidence(
                        workload,
                        f"the swarm has {engine.swarm_managers} managers; 3, 5 or 7 are enough",
                        "swarm_active",
                    ),
                )
            )
        return Passed()
