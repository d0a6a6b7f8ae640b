"""The storage driver (CIS Docker 2.6)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineStorageDriver(EngineCheck):
    """aufs was never part of the kernel, and Docker 24 removed it."""

    id = "engine-storage-driver"
    title = "Unmaintained storage driver aufs"
    severity = Severity.MEDIUM
    remedy = '"storage-driver": "overlay2"'
    looks_at = "the storage driver"
    cannot_see = "vulnerabilities of other storage drivers"
    cis = ("2.6",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if not engine.storage_driver:
            return Incomplete("not_told", "unknown: the storage driver")
        if engine.storage_driver == "aufs":
            return Failed((evidence(workload, "the storage driver aufs is no longer maintained", "storage_driver"),))
        return Passed()
