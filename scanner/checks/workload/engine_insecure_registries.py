"""Insecure registries (CIS Docker 2.5)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineInsecureRegistries(EngineCheck):
    """The engine pulls from registries without TLS."""

    id = "engine-insecure-registries"
    title = "The engine pulls from registries without TLS"
    severity = Severity.HIGH
    remedy = 'remove "insecure-registries"'
    looks_at = "insecure registries of docker info and daemon.json"
    cannot_see = "whether anybody pulls from them"
    cis = ("2.5",)
    article = ("Security: Registry Security",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.insecure_registries is None:
            return Incomplete("not_told", "nothing tells which registries are insecure")

        seen = tuple(
            evidence(workload, f"it pulls from {name} without verified TLS", "insecure_registries", name=name)
            for name in engine.insecure_registries
        )
        return Failed(seen) if seen else Passed()
