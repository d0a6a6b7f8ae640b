"""hostPath volumes (Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostPathVolumes(ContainerCheck):
    """A hostPath exposes files of the node, and what is written there outlives the pod."""

    id = "host-path-volumes"
    title = "hostPath volume"
    severity = Severity.HIGH
    remedy = "use a persistentVolumeClaim, a configMap or an emptyDir instead of hostPath"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "use a persistentVolumeClaim, a configMap or an emptyDir instead of hostPath",
    }
    looks_at = "volumes of the pod, mounted or not"
    cannot_see = "the storage behind a persistent volume"
    pss = ("hostPathVolumes",)
    trivy = ("KSV-0023",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable(
                "only Kubernetes has hostPath volumes; the check sensitive-host-mounts covers bind mounts"
            )
        seen = [
            evidence(
                workload,
                f"the volume {volume.name} is the hostPath {volume.path or '(no path)'}",
                f"volumes/{number}",
                "volumes",
                name=volume.name,
            )
            for number, volume in enumerate(workload.pod.volumes)
            if volume.type == "hostPath"
        ]
        return self.failed(workload, *seen) if seen else Passed()
