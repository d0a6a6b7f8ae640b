"""Volume types outside the restricted set (Pod Security Standards: restricted)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload

# Pod Security Standards, restricted, "Volume Types".
_ALLOWED = frozenset(
    (
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
)


class VolumeTypes(ContainerCheck):
    """Only types that expose neither the node's files nor credentials of a storage system are in the restricted set."""

    id = "volume-types"
    title = "Volume type outside the restricted set"
    severity = Severity.LOW
    remedy = "use a persistentVolumeClaim instead"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "use a persistentVolumeClaim instead",
    }
    looks_at = "the types of the pod's volumes"
    cannot_see = "what a volume driver does"
    pss = ("restrictedVolumes",)
    trivy = ("KSV-0028",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.pod is None:
            return NotApplicable("only Kubernetes has these volume types")
        seen = [
            evidence(
                workload,
                f"the volume {volume.name} has the type {volume.type}",
                f"volumes/{number}",
                "volumes",
                name=volume.name,
            )
            for number, volume in enumerate(workload.pod.volumes)
            if volume.type not in _ALLOWED
        ]
        return self.failed(workload, *seen) if seen else Passed()
