"""Unmasked /proc (Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import relaxed_by_user_namespace
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload


class ProcMount(ContainerCheck):
    """The masked files of /proc give access to kernel memory, keys and settings (/proc/kcore, /proc/sys)."""

    id = "proc-mount"
    title = "/proc is not masked"
    severity = Severity.HIGH
    remedy = "securityContext: {procMount: Default}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {procMount: Default}",
        "compose": "remove: security_opt: [systempaths=unconfined]",
        "docker": "docker run without --security-opt systempaths=unconfined",
    }
    looks_at = "procMount, or systempaths=unconfined"
    cannot_see = "masks that a runtime fails to apply"
    pss = ("procMount",)
    trivy = ("KSV-0027",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if any(option.replace(" ", "") == "systempaths=unconfined" for option in workload.security_opt):
            return self.failed(
                workload, evidence(workload, "systempaths=unconfined: /proc is not masked", "security_opt")
            )
        pod = workload.pod
        if pod is None or workload.proc_mount in (None, "", "Default"):
            return Passed()
        if relaxed_by_user_namespace(pod):
            return Passed()
        return self.failed(workload, evidence(workload, f"procMount is {workload.proc_mount}", "proc_mount"))
