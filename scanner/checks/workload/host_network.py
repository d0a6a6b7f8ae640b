"""The network namespace of the host (CIS Docker 5.10, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostNetwork(ContainerCheck):
    """Services on the host's loopback are reachable, network policies do not apply, and traffic can be sniffed."""

    id = "host-network"
    title = "Shares the host's network namespace"
    severity = Severity.HIGH
    remedy = "hostNetwork: false"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "hostNetwork: false",
        "compose": "network_mode: bridge",
        "docker": "docker run without --network host",
        "swarm": "attach the service to an overlay network",
        "ecs": '"networkMode": "awsvpc"',
        "marathon": '"networks": [{"mode": "container/bridge"}]',
    }
    looks_at = "the network mode"
    cannot_see = "what the program does with it"
    cis = ("5.10",)
    pss = ("hostNamespaces",)
    trivy = ("KSV-0009",)
    kubesec = ("HostNetwork",)
    nsa = ("Kubernetes Pod security",)
    article = ("Networking: Host Networking",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.network_mode != "host":
            return Passed()
        return self.failed(
            workload,
            evidence(
                workload,
                "shares the host's network namespace: services on the host's loopback interface are reachable",
                "network_mode",
            ),
        )
