"""Default capabilities (Pod Security Standards: restricted)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import exempt_as_windows, minor
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class KeptCapabilities(ContainerCheck):
    """Docker and containerd grant 14 capabilities by default; most programs need none."""

    id = "kept-capabilities"
    title = "Does not drop all capabilities"
    severity = Severity.MEDIUM
    remedy = "securityContext: {capabilities: {drop: [ALL]}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {capabilities: {drop: [ALL]}}",
        "compose": "cap_drop: [ALL]",
        "docker": "docker run --cap-drop ALL",
        "swarm": "docker service update --cap-drop ALL",
        "ecs": '"linuxParameters": {"capabilities": {"drop": ["ALL"]}}',
        "marathon": '{"key": "cap-drop", "value": "ALL"}',
    }
    looks_at = "whether ALL capabilities are dropped, and which are added back"
    cannot_see = "which capabilities the program needs"
    pss = ("capabilities_restricted",)
    trivy = ("KSV-0003", "KSV-0004", "KSV-0106")
    kubesec = ("CapDropAny", "CapDropAll")
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.os == "windows":
            return NotApplicable("Windows has no capabilities")
        if workload.pod is not None and exempt_as_windows(workload.pod):
            return NotApplicable("Windows has no capabilities")
        if workload.pod is not None and minor(workload.pod) < 22:
            return NotApplicable("the rule applies from Kubernetes 1.22")
        if workload.privileged:
            return self.failed(
                workload, evidence(workload, "privileged: capabilities cannot be dropped", "privileged", "cap_drop")
            )
        seen = []
        if "ALL" not in workload.cap_drop:
            seen.append(evidence(workload, "does not drop ALL capabilities", "cap_drop"))
        seen += [
            evidence(workload, f"adds the capability {name}", "cap_add", name=name)
            for name in workload.cap_add
            if name != "NET_BIND_SERVICE"
        ]
        return self.failed(workload, *seen) if seen else Passed()
