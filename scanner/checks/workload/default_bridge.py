"""The default bridge (CIS Docker 5.30)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class DefaultBridge(ContainerCheck):
    """Every container without a network of its own joins the default bridge and can reach the others there."""

    id = "default-bridge"
    title = "Uses the default bridge network"
    severity = Severity.LOW
    remedy = "networks: [app]"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "networks: [app]",
        "docker": "docker network create app; docker run --network app",
    }
    looks_at = "the network mode and the networks"
    cannot_see = "whether the engine blocks traffic between its containers (the check engine-inter-container-traffic)"
    cis = ("5.30",)
    article = ("Networking: Overlay Networks",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source == "docker":
            on_it = any(network.default for network in workload.networks) or workload.network_mode == "bridge"
        elif workload.source == "compose":
            on_it = workload.network_mode == "bridge"
        else:
            return NotApplicable("only Docker and Compose have the default bridge")
        if not on_it:
            return Passed()
        return self.failed(
            workload,
            evidence(
                workload,
                "connected to the default bridge docker0, where other containers can reach it",
                "network_mode",
                "networks",
            ),
        )
