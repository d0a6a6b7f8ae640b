"""Central logging (CIS Docker 2.13)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineCentralLogging(EngineCheck):
    """Logs that stay on the host are lost with it, and an intruder with root can alter them."""

    id = "engine-central-logging"
    title = "Container logs are not sent to a central system"
    severity = Severity.LOW
    remedy = '"log-driver": "syslog", "log-opts": {"syslog-address": "tcp+tls://logs.example.com:6514"}'
    looks_at = "the default log driver"
    cannot_see = "a collector that reads the files on the host"
    cis = ("2.13",)
    article = ("Logging and Monitoring: Centralized Logging",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.logging_driver:
            return Incomplete("not_told", "unknown: the default log driver")
        if engine.logging_driver in ("json-file", "local", "none"):
            return Failed(
                (
                    evidence(
                        workload,
                        f"the default log driver is {engine.logging_driver}: logs stay on the host",
                        "logging_driver",
                    ),
                )
            )
        return Passed()
