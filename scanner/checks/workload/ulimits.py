"""Overridden ulimits (CIS Docker 5.19)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class Ulimits(ContainerCheck):
    """Limits set on the container replace the engine's defaults, which may be lower for a reason."""

    id = "ulimits"
    title = "Overrides the default ulimits"
    severity = Severity.LOW
    remedy = "remove ulimits, or tolerate them in the policy"
    remedies: ClassVar[Mapping[str, str]] = {
        "compose": "remove ulimits, or tolerate them in the policy",
        "docker": "docker run without --ulimit",
        "swarm": "remove Ulimits",
        "ecs": 'remove "ulimits"',
        "marathon": "remove the parameter ulimit",
    }
    looks_at = "ulimits"
    cannot_see = "whether the program needs other limits (many databases do)"
    cis = ("5.19",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if not workload.ulimits:
            return Passed()
        names = ", ".join(sorted(workload.ulimits))
        return self.failed(workload, evidence(workload, f"overrides the engine's ulimits: {names}", "ulimits"))
