"""A probe or hook with a host (Pod Security Standards: baseline, from v1.34)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._pod_security import minor
from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class ProbeHosts(ContainerCheck):
    """With a host the kubelet can be made to send requests to services that pods cannot reach (SSRF)."""

    id = "probe-hosts"
    title = "Probe or lifecycle hook with a host"
    severity = Severity.LOW
    remedy = "remove host from httpGet and tcpSocket"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "remove host from httpGet and tcpSocket",
    }
    looks_at = "the host of probes and lifecycle hooks"
    cannot_see = "redirects that the kubelet follows"
    pss = ("hostProbesAndHostLifecycle",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None or minor(workload.pod) < 34:
            return NotApplicable("the rule applies from Kubernetes 1.34")
        seen = [
            evidence(
                workload, f"the kubelet sends the {probe.kind} requests to {probe.host}", probe.kind, name=probe.host
            )
            for probe in workload.probes
            if probe.host
        ]
        return self.failed(workload, *seen) if seen else Passed()
