"""TLS of the API (CIS Docker 2.7)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineTls(EngineCheck):
    """The API starts containers as root, so that an open TCP port without client certificates is remote root."""

    id = "engine-tls"
    title = "The engine's API is on TCP without client verification"
    severity = Severity.CRITICAL
    remedy = '"tlsverify": true, "tlscacert": …, "tlscert": …, "tlskey": …'
    looks_at = "hosts and tlsverify in daemon.json"
    cannot_see = "addresses given on the command line (-H)"
    cis = ("2.7",)
    tags = ("engine", "workload-danger")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.tcp_hosts is None:
            return Incomplete("not_told", "only daemon.json contains the engine's addresses")

        if engine.tcp_hosts and not engine.tls_verify:
            return Failed(
                (
                    evidence(
                        workload,
                        f"it listens on {', '.join(engine.tcp_hosts)} without verifying clients: anyone who "
                        "can reach it has root on the host",
                        "tcp_hosts",
                    ),
                )
            )
        return Passed()
