"""The default seccomp profile (CIS Docker 2.17)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSeccomp(EngineCheck):
    """Without a default profile containers can make every system call of the kernel."""

    id = "engine-seccomp"
    title = "No default seccomp profile"
    severity = Severity.HIGH
    remedy = '"seccomp-profile": "builtin"'
    looks_at = "seccomp in docker info and daemon.json"
    cannot_see = "what a custom profile permits"
    cis = ("2.17",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.seccomp is None:
            return Incomplete("not_told", "unknown: the default seccomp profile")

        if engine.seccomp == "unconfined":
            return Failed((evidence(workload, "containers run without seccomp by default", "seccomp"),))
        return Passed()
