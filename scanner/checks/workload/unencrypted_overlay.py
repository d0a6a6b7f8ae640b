"""Overlay networks without encryption (CIS Docker 7.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class UnencryptedOverlay(ContainerCheck):
    """Traffic between nodes is readable on the network between them."""

    id = "unencrypted-overlay"
    title = "Overlay network without encryption"
    severity = Severity.MEDIUM
    remedy = 'networks: {app: {driver: overlay, driver_opts: {encrypted: ""}}}'
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": 'networks: {app: {driver: overlay, driver_opts: {encrypted: ""}}}',
        "swarm": "docker network create --driver overlay --opt encrypted app",
    }
    looks_at = "the drivers and options of its networks"
    cannot_see = "encryption by the application itself"
    cis = ("7.3",)
    article = ("Networking: Overlay Networks",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        overlays = [
            n for n in workload.networks if n.driver == "overlay" or (workload.source == "swarm" and n.driver == "")
        ]
        if not overlays:
            return NotApplicable("not connected to an overlay network")
        seen = [
            evidence(workload, f"the overlay network {network.name} is not encrypted", "networks", name=network.name)
            for network in overlays
            if network.encrypted is False or network.default  # nobody asked for the encryption of a default network
        ]
        if seen:
            return self.failed(workload, *seen)
        unknown = [network.name for network in overlays if network.encrypted is None]
        if unknown:
            return Incomplete(
                "network_unknown", f"{workload.name}: unknown whether the network {unknown[0]} is encrypted"
            )
        return Passed()
