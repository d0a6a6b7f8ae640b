"""Auto-lock (CIS Docker 7.5)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSwarmAutolock(EngineCheck):
    """The Raft log holds the swarm's secrets; without auto-lock its key is beside it on the manager's disk."""

    id = "engine-swarm-autolock"
    title = "Swarm auto-lock is disabled"
    severity = Severity.MEDIUM
    remedy = "docker swarm update --autolock=true"
    looks_at = "the auto-lock setting of the swarm"
    cannot_see = "how the unlock key is stored and rotated (CIS 7.6)"
    cis = ("7.5",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.swarm_active:
            return NotApplicable("not a swarm node")
        if engine.swarm_autolock is None:
            return Incomplete("not_told", "only docker info of a manager contains the auto-lock setting")
        if not engine.swarm_autolock:
            return Failed(
                (
                    evidence(
                        workload,
                        "auto-lock is disabled: the swarm's encryption keys are readable on a manager's disk",
                        "swarm_active",
                    ),
                )
            )
        return Passed()
