"""Auto-lock (CIS Docker 7.5)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSwarmAutolock(EngineCheck):
    """The swarm's keys lie open on its managers."""

    id = "engine-swarm-autolock"
    title = "The swarm's keys lie open on its managers"
    severity = Severity.MEDIUM
    remedy = "docker swarm update --autolock=true"
    looks_at = "auto-lock of the cluster"
    cannot_see = "how its key is kept and rotated (CIS 7.6)"
    cis = ("7.5",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.swarm_active:
            return NotApplicable("it is in no swarm")
        if engine.swarm_autolock is None:
            return Incomplete("not_told", "only a manager's docker info tells about auto-lock")
        if not engine.swarm_autolock:
            return Failed(
                (evidence(workload, "auto-lock is off: a manager's disk holds the keys of the swarm", "swarm_active"),)
            )
        return Passed()
