"""TLS of the API (CIS Docker 2.7)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineTls(EngineCheck):
    """The engine listens on TCP without TLS."""

    id = "engine-tls"
    title = "The engine listens on TCP without TLS"
    severity = Severity.CRITICAL
    remedy = '"tlsverify": true, "tlscacert": …, "tlscert": …, "tlskey": …'
    looks_at = "hosts and tlsverify in daemon.json"
    cannot_see = "addresses given on the command line (-H)"
    cis = ("2.7",)
    tags = ("engine", "workload-danger")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.tcp_hosts is None:
            return Incomplete("not_told", "only daemon.json tells where the engine listens")

        if engine.tcp_hosts and not engine.tls_verify:
            return Failed(
                (
                    evidence(
                        workload,
                        f"it listens on {', '.join(engine.tcp_hosts)} without verifying clients: anybody who "
                        "reaches it is root",
                        "tcp_hosts",
                    ),
                )
            )
        return Passed()
