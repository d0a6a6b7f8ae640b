"""No healthcheck or probe (CIS Docker 5.27)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._healthchecks import why_useless
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class NoHealthcheck(ContainerCheck):
    """Without one the platform neither restarts a program that hangs nor stops sending it requests."""

    id = "no-healthcheck"
    title = "No healthcheck or probe"
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
    looks_at = "healthcheck, liveness and readiness probes, and the image's HEALTHCHECK on platforms that use it"
    cannot_see = "whether the healthcheck tests the function of the service"
    cis = ("5.27",)
    article = ("Logging and Monitoring: Health Checks",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.container_kind in ("init", "ephemeral") or workload.kind in ("Job", "CronJob"):
            return NotApplicable("runs to completion")
        if workload.source == "kubernetes":
            kinds = {probe.kind for probe in workload.probes}
            missing = [kind for kind in ("liveness", "readiness") if kind not in kinds]
            if not missing:
                return self._outcome_of_probes(workload)
            text = f"no {' and no '.join(missing)} probe (Kubernetes does not use the image's HEALTHCHECK)"
            return self.failed(workload, evidence(workload, text, "liveness", "readiness", "image"))
        if workload.healthcheck:
            return self._outcome_of_healthcheck(workload)
        if workload.healthcheck is False:
            return self.failed(workload, evidence(workload, "the healthcheck is disabled", "healthcheck"))
        if workload.source == "ecs":
            return self.failed(
                workload, evidence(workload, "no healthCheck (ECS does not use the image's HEALTHCHECK)", "healthcheck")
            )
        if image is not None and isinstance(image.results.get("healthcheck"), Passed):
            return Passed()
        if image is None and workload.kind != "container":
            return Incomplete(
                "image_unknown", f"{workload.name}: no healthcheck is declared, and the image was not examined"
            )
        return self.failed(
            workload, evidence(workload, "neither the workload nor its image has a useful healthcheck", "healthcheck")
        )

    def _outcome_of_healthcheck(self, workload: Workload) -> Outcome:
        words = workload.healthcheck_test
        command = words[1:] if words[:1] in (("CMD",), ("CMD-SHELL",)) else words
        useless = why_useless(" ".join(command)) if words else ""  # no words: the platform tests by itself
        return self.failed(workload, evidence(workload, useless, "healthcheck")) if useless else Passed()

    def _outcome_of_probes(self, workload: Workload) -> Outcome:
        seen = [
            evidence(workload, f"{probe.kind} probe: {useless}", probe.kind)
            for probe in workload.probes
            if probe.kind in ("liveness", "readiness") and probe.command
            if (useless := why_useless(" ".join(probe.command)))
        ]
        return self.failed(workload, *seen) if seen else Passed()
