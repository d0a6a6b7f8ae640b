"""Node certificates (CIS Docker 7.7)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSwarmCertificates(EngineCheck):
    """The swarm's node certificates live long."""

    id = "engine-swarm-certificates"
    title = "The swarm's node certificates live long"
    severity = Severity.LOW
    remedy = "docker swarm update --cert-expiry 48h"
    looks_at = "the life of node certificates"
    cannot_see = "whether the CA was rotated (CIS 7.8)"
    cis = ("7.7",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.swarm_active:
            return NotApplicable("it is in no swarm")
        if engine.node_certificate_days is None:
            return Incomplete("not_told", "only a manager's docker info tells the life of node certificates")
        if engine.node_certificate_days > 90:
            return Failed(
                (evidence(workload, f"node certificates live {engine.node_certificate_days:.0f} days", "swarm_active"),)
            )
        return Passed()
