"""Swarm managers (CIS Docker 7.1)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSwarmManagers(EngineCheck):
    """Every manager holds the swarm's keys. An even number tolerates no more failures than one manager fewer."""

    id = "engine-swarm-managers"
    title = "Too many or an even number of swarm managers"
    severity = Severity.LOW
    remedy = "docker node demote NODE"
    looks_at = "the number of managers"
    cannot_see = "how the managers are distributed over hosts and zones"
    cis = ("7.1",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.swarm_active:
            return NotApplicable("not a swarm node")
        if engine.swarm_managers is None:
            return Incomplete("not_told", "docker info does not contain the number of managers")
        if engine.swarm_managers > 7 or (engine.swarm_managers > 1 and engine.swarm_managers % 2 == 0):
            return Failed(
                (
                    evidence(
                        workload,
                        f"the swarm has {engine.swarm_managers} managers; use 1, 3, 5 or 7",
                        "swarm_active",
                    ),
                )
            )
        return Passed()
