"""The log driver (Logging and Monitoring: centralized logging)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class LoggingDriver(ContainerCheck):
    """Discarded logs leave no trace of an attack; json-file without a size limit fills the host's disk."""

    id = "logging-driver"
    title = "Logs are discarded or grow without limit"
    severity = Severity.LOW
    remedy = 'logging: {driver: json-file, options: {max-size: 10m, max-file: "3"}}'
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": 'logging: {driver: json-file, options: {max-size: 10m, max-file: "3"}}',
        "docker": "docker run --log-opt max-size=10m --log-opt max-file=3",
        "swarm": "docker service update --log-driver json-file --log-opt max-size=10m",
        "ecs": '"logConfiguration": {"logDriver": "awslogs", "options": {…}}',
        "marathon": '{"key": "log-opt", "value": "max-size=10m"}',
    }
    looks_at = "the log driver and its options"
    cannot_see = "for documents: the engine's default driver; log files inside the container"
    article = ("Logging and Monitoring: Centralized Logging",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source == "kubernetes":
            return NotApplicable("the kubelet rotates the logs of containers")
        logging = workload.logging
        if logging is None or logging.driver in ("", "json-file", "local"):
            options = dict(logging.options) if logging else {}
            if logging is not None and (logging.driver == "local" or options.get("max-size")):
                return Passed()
            if workload.source == "ecs":
                return self.failed(
                    workload, evidence(workload, "no logConfiguration: the logs are not collected", "logging")
                )
            return self.failed(
                workload,
                evidence(
                    workload, "the driver json-file without max-size: the log grows until the disk is full", "logging"
                ),
            )
        if logging.driver == "none":
            return self.failed(workload, evidence(workload, "the logs are discarded (driver none)", "logging"))
        return Passed()
