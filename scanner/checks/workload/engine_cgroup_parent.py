"""A custom cgroup parent (CIS Docker 2.10)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineCgroupParent(EngineCheck):
    """Containers under another cgroup may escape the resource limits of Docker's own."""

    id = "engine-cgroup-parent"
    title = "The engine uses a custom cgroup parent"
    severity = Severity.LOW
    remedy = 'remove "cgroup-parent"'
    looks_at = "cgroup-parent in daemon.json"
    cannot_see = "the limits of that cgroup"
    cis = ("2.10",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.cgroup_parent is None:
            return Incomplete("not_told", "only daemon.json contains the cgroup parent")

        if engine.cgroup_parent:
            return Failed(
                (evidence(workload, f"containers run under the cgroup {engine.cgroup_parent}", "cgroup_parent"),)
            )
        return Passed()
