"""A sample: a container without a name."""

from __future__ import annotations

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class SampleWorkloadCheck(ContainerCheck):
    """A container without a limit of processes can exhaust its host."""

    id = "sample-workload-check"
    title = "No limit of processes"
    severity = Severity.LOW
    remedy = "set a limit of processes"
    looks_at = "the limit of processes"
    cannot_see = "limits of the host"
    cis = ("5.29",)
    tags = ("workload",)

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pids_limit:
            return Passed()
        return self.failed(workload, evidence(workload, "it may start any number of processes", "pids_limit"))
