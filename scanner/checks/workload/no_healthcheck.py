"""No healthcheck or probe (CIS Docker 5.27)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class NoHealthcheck(ContainerCheck):
    """Nobody sees when it is sick."""

    id = "no-healthcheck"
    title = "Nobody sees when it is sick"
    severity = Severity.LOW
    remedy = "livenessProbe: {httpGet: {path: /healthz, port: 8080}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "livenessProbe: {httpGet: {path: /healthz, port: 8080}}",
        "compose": 'healthcheck: {test: ["CMD", "/app/healthcheck"]}',
        "docker": "docker run --health-cmd /app/healthcheck",
        "swarm": "docker service update --health-cmd /app/healthcheck",
        "ecs": '"healthCheck": {"command": ["CMD", "/app/healthcheck"]}',
        "marathon": '"healthChecks": [{"protocol": "HTTP", "path": "/healthz"}]',
    }
    looks_at = "healthcheck, liveness and readiness probes, and the image's HEALTHCHECK where the platform uses it"
    cannot_see = "whether it tests what matters"
    cis = ("5.27",)
    article = ("Logging and Monitoring: Health Checks",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.container_kind in ("init", "ephemeral") or workload.kind in ("Job", "CronJob"):
            return NotApplicable("it ends by itself")
        if workload.source == "kubernetes":
            kinds = {probe.kind for probe in workload.probes}
            missing = [kind for kind in ("liveness", "readiness") if kind not in kinds]
            if not missing:
                return Passed()
            text = f"it has no {' and no '.join(missing)} probe (Kubernetes does not use the image's HEALTHCHECK)"
            return self.failed(workload, evidence(workload, text, "liveness", "readiness", "image"))
        if workload.healthcheck:
            return Passed()
        if workload.healthcheck is False:
            return self.failed(workload, evidence(workload, "its healthcheck is switched off", "healthcheck"))
        if workload.source == "ecs":
            return self.failed(
                workload, evidence(workload, "it has no healthCheck (ECS does not use the image's)", "healthcheck")
            )
        if image is not None and isinstance(image.results.get("healthcheck"), Passed):
            return Passed()
        if image is None and workload.kind != "container":
            return Incomplete(
                "image_unknown", f"{workload.name}: it declares no healthcheck, and its image was not examined"
            )
        return self.failed(
            workload, evidence(workload, "neither it nor its image has a useful healthcheck", "healthcheck")
        )
