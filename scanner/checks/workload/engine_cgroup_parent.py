"""The default control group (CIS Docker 2.10)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineCgroupParent(EngineCheck):
    """The engine uses a control group of its own."""

    id = "engine-cgroup-parent"
    title = "The engine uses a control group of its own"
    severity = Severity.LOW
    remedy = 'remove "cgroup-parent"'
    looks_at = "cgroup-parent in daemon.json"
    cannot_see = "what limits that group has"
    cis = ("2.10",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.cgroup_parent is None:
            return Incomplete("not_told", "only daemon.json tells the control group")

        if engine.cgroup_parent:
            return Failed((evidence(workload, f"containers run under {engine.cgroup_parent}", "cgroup_parent"),))
        return Passed()
