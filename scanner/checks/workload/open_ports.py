"""Published ports that the image does not declare (CIS Docker 5.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class OpenPorts(ContainerCheck):
    """Each published port adds attack surface; one that the image does not declare is often left over."""

    id = "open-ports"
    title = "Undeclared or indiscriminate published ports"
    severity = Severity.LOW
    remedy = "publish only ports that the program listens on"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "declare only ports that the program listens on",
        "compose": "publish only ports that the program listens on",
        "docker": "docker run -p for each port that is needed, without -P",
    }
    looks_at = "published ports that the image does not declare, and --publish-all"
    cannot_see = "which ports are needed"
    cis = ("5.9",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.publish_all_ports:
            return self.failed(
                workload, evidence(workload, "publishes every port that its image declares", "publish_all_ports")
            )
        declared = set()
        if image is not None:
            declared = {text.partition("/")[0] for text in image.image.config.exposed_ports}
        seen = [
            evidence(
                workload,
                f"port {port.container_port} is published but not declared by the image",
                f"ports/{number}",
                "ports",
                name=str(port.container_port),
            )
            for number, port in enumerate(workload.ports)
            if port.host_port is not None and declared and str(port.container_port) not in declared
        ]
        return self.failed(workload, *seen) if seen else Passed()
