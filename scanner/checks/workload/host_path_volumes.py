"""hostPath volumes (Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class HostPathVolumes(ContainerCheck):
    """Mounts a path of the node."""

    id = "host-path-volumes"
    title = "Mounts a path of the node"
    severity = Severity.HIGH
    remedy = "use a persistentVolumeClaim, a configMap or an emptyDir instead of hostPath"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "use a persistentVolumeClaim, a configMap or an emptyDir instead of hostPath",
    }
    looks_at = "volumes of the pod, mounted or not"
    cannot_see = "what a persistent volume rests on"
    pss = ("hostPathVolumes",)
    trivy = ("KSV-0023",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable("the check sensitive-host-mounts judges bind mounts")
        seen = [
            evidence(
                workload,
                f"the volume {volume.name} is {volume.path or 'a path'} of the node",
                f"volumes/{number}",
                "volumes",
                name=volume.name,
            )
            for number, volume in enumerate(workload.pod.volumes)
            if volume.type == "hostPath"
        ]
        return self.failed(workload, *seen) if seen else Passed()
