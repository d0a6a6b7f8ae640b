"""The userland proxy (CIS Docker 2.16)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineUserlandProxy(EngineCheck):
    """The proxy is an additional process for each port, and services behind it see the proxy's address as client."""

    id = "engine-userland-proxy"
    title = "The userland proxy is enabled"
    severity = Severity.LOW
    remedy = '"userland-proxy": false'
    looks_at = "userland-proxy in daemon.json"
    cannot_see = "command line options of the engine, if only daemon.json was read"
    cis = ("2.16",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.userland_proxy is None:
            return Incomplete("not_told", "only daemon.json contains the userland-proxy setting")

        if engine.userland_proxy:
            return Failed(
                (
                    evidence(
                        workload, "the userland proxy is enabled: it hides the addresses of clients", "userland_proxy"
                    ),
                )
            )
        return Passed()
