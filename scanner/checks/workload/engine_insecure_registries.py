"""Insecure registries (CIS Docker 2.5)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineInsecureRegistries(EngineCheck):
    """Without verified TLS anyone on the path can replace the images that are pulled."""

    id = "engine-insecure-registries"
    title = "The engine accepts registries without verified TLS"
    severity = Severity.HIGH
    remedy = 'remove "insecure-registries"'
    looks_at = "insecure registries in docker info and daemon.json"
    cannot_see = "whether images are pulled from them"
    cis = ("2.5",)
    article = ("Security: Registry Security",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.insecure_registries is None:
            return Incomplete("not_told", "unknown: the list of insecure registries")

        seen = tuple(
            evidence(
                workload,
                f"{name} is an insecure registry: images are pulled without verified TLS",
                "insecure_registries",
                name=name,
            )
            for name in engine.insecure_registries
        )
        return Failed(seen) if seen else Passed()
