"""Unused images (CIS Docker 6.1)."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import EngineCheck
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.workload import EngineFacts, Workload


class EngineUnusedImages(EngineCheck):
    """Old images keep their vulnerabilities and can be run by mistake."""

    id = "engine-unused-images"
    title = "Many unused images on the host"
    severity = Severity.LOW
    remedy = "docker image prune --all"
    looks_at = "the numbers of images and containers"
    cannot_see = "which images will be needed again"
    cis = ("6.1",)
    tags = ("engine", "workload-hardening")

    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """See ``EngineCheck.examine_engine``."""
        if engine.images is None or engine.containers is None:
            return Incomplete("not_told", "only docker info contains the numbers of images and containers")
        if engine.images > 20 and engine.images > 3 * max(1, engine.containers):
            return Failed(
                (
                    evidence(
                        workload,
                        f"{engine.images} images are kept for {engine.containers} containers",
                        "storage_driver",
                    ),
                )
            )
        return Passed()
