"""AppArmor profile (CIS Docker 5.2, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


def _is_unconfined(profile: str | None) -> bool:
    """Return whether AppArmor is disabled. None leaves the profile to the runtime."""
    return profile is not None and profile.partition("/")[0].lower() in ("unconfined", "")


def _is_forbidden(value: str) -> bool:
    """Return whether the Pod Security Standards (baseline) forbid the value of the annotation."""
    return not (value in ("", "runtime/default") or value.startswith("localhost/"))


class ApparmorProfile(ContainerCheck):
    """AppArmor restricts a container's access to files and the kernel, even if it runs as root."""

    id = "apparmor-profile"
    title = "Runs without an AppArmor profile"
    severity = Severity.MEDIUM
    remedy = "securityContext: {appArmorProfile: {type: RuntimeDefault}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {appArmorProfile: {type: RuntimeDefault}}",
        "compose": "remove: security_opt: [apparmor=unconfined]",
        "docker": "docker run without --security-opt apparmor=unconfined",
        "swarm": '"Privileges": {"AppArmor": {"Mode": "default"}}',
        "ecs": "remove apparmor:unconfined from dockerSecurityOptions",
        "marathon": "remove the parameter security-opt",
    }
    looks_at = "the AppArmor profile; for a running container the active one"
    cannot_see = "whether the host has AppArmor, for documents"
    cis = ("5.2",)
    pss = ("appArmorProfile",)
    trivy = ("KSV-0002",)
    kubesec = ("ApparmorAny",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.os == "windows":
            return NotApplicable("Windows has no AppArmor")
        if workload.pod is not None:
            if any(_is_forbidden(value) for _, value in workload.pod.apparmor_annotations):
                return self.failed(
                    workload, evidence(workload, "an annotation sets a forbidden AppArmor profile", "apparmor")
                )
            if _is_unconfined(workload.apparmor):
                return self.failed(
                    workload, evidence(workload, f"the AppArmor profile is {workload.apparmor}", "apparmor")
                )
            return Passed()
        if _is_unconfined(workload.apparmor):
            return self.failed(workload, evidence(workload, "AppArmor is disabled", "apparmor"))
        if workload.kind == "container" and workload.apparmor is None:
            return self.failed(workload, evidence(workload, "no AppArmor profile is active", "apparmor"))
        return Passed()
