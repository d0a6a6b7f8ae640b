"""Seccomp of the engine (CIS Docker 2.17)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSeccomp(EngineCheck):
    """The engine has no seccomp profile."""

    id = "engine-seccomp"
    title = "The engine has no seccomp profile"
    severity = Severity.HIGH
    remedy = '"seccomp-profile": "builtin"'
    looks_at = "seccomp in docker info and daemon.json"
    cannot_see = "what a profile of your own allows"
    cis = ("2.17",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.seccomp is None:
            return Incomplete("not_told", "nothing tells the default seccomp profile")

        if engine.seccomp == "unconfined":
            return Failed((evidence(workload, "containers run without seccomp by default", "seccomp"),))
        return Passed()
