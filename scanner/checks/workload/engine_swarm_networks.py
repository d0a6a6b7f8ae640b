"""Overlay networks of the swarm (CIS Docker 7.3)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineSwarmNetworks(EngineCheck):
    """Overlay traffic crosses the hosts' network in plain VXLAN unless the network is encrypted (IPsec)."""

    id = "engine-swarm-networks"
    title = "Swarm overlay networks without encryption"
    severity = Severity.MEDIUM
    remedy = "docker network create --driver overlay --opt encrypted NAME"
    looks_at = "the options of overlay networks"
    cannot_see = "traffic that is encrypted by the application"
    cis = ("7.3",)
    article = ("Networking: Overlay Networks",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.swarm_active:
            return NotApplicable("not a swarm node")
        seen = tuple(
            evidence(
                workload, f"the overlay network {network.name} is not encrypted", "swarm_active", name=network.name
            )
            for network in engine.overlay_networks
            if network.encrypted is False and network.name != "ingress"
        )
        return Failed(seen) if seen else Passed()
