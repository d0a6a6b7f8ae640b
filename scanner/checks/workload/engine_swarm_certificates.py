"""Node certificates (CIS Docker 7.7)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSwarmCertificates(EngineCheck):
    """A stolen node certificate is usable until it expires."""

    id = "engine-swarm-certificates"
    title = "Long-lived swarm node certificates"
    severity = Severity.LOW
    remedy = "docker swarm update --cert-expiry 48h"
    looks_at = "the validity period of node certificates"
    cannot_see = "whether the CA was rotated (CIS 7.8)"
    cis = ("7.7",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.swarm_active:
            return NotApplicable("not a swarm node")
        if engine.node_certificate_days is None:
            return Incomplete("not_told", "only docker info of a manager contains the validity of node certificates")
        if engine.node_certificate_days > 90:
            return Failed(
                (
                    evidence(
                        workload,
                        f"node certificates are valid for {engine.node_certificate_days:.0f} days; the limit is 90",
                        "swarm_active",
                    ),
                )
            )
        return Passed()
