"""The engine does not manage its firewall rules (CIS Docker 2.4)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineIptables(EngineCheck):
    """Without the engine's rules its networks are not isolated from each other unless someone writes such rules."""

    id = "engine-iptables"
    title = "The engine does not manage firewall rules"
    severity = Severity.MEDIUM
    remedy = '"iptables": true'
    looks_at = "iptables in daemon.json"
    cannot_see = "command line options of the engine, if only daemon.json was read"
    cis = ("2.4",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.iptables is None:
            return Incomplete("not_told", "only daemon.json contains the iptables setting")

        if not engine.iptables:
            return Failed((evidence(workload, "the engine does not set firewall rules for its networks", "iptables"),))
        return Passed()
