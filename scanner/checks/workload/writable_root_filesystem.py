"""A writable root file system (CIS Docker 5.13), considering which directories the image writes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Failed, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


def _needs(image: ImageSubject | None) -> tuple[str, ...] | None:
    """Directories that the image's check found to be written to; None if the image was not examined."""
    found = image.results.get("read-only-root-filesystem") if image else None
    if isinstance(found, Passed):
        return ()
    return tuple(e.path for e in found.evidence if e.path) if isinstance(found, Failed) else None


def _is_mounted(path: str, workload: Workload) -> bool:
    return any(
        not mount.read_only and f"{path}/".startswith(f"{mount.target.strip('/')}/")
        for mount in workload.mounts
        if mount.target.strip("/")
    )


def _advice(workload: Workload, needs: tuple[str, ...] | None) -> str:
    if needs is None:
        return ""
    missing = [path for path in needs if not _is_mounted(path, workload)]
    if not missing:
        return "; nothing found in the image prevents a read-only one"
    return "; to make it read-only, mount a tmpfs or volume at " + ", ".join(f"/{path}" for path in missing[:10])


class WritableRootFilesystem(ContainerCheck):
    """With a read-only root an intruder can neither replace programs nor leave tools behind."""

    id = "writable-root-filesystem"
    title = "Writable root file system"
    severity = Severity.MEDIUM
    remedy = "securityContext: {readOnlyRootFilesystem: true}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {readOnlyRootFilesystem: true}",
        "compose": "read_only: true",
        "docker": "docker run --read-only",
        "swarm": "docker service update --read-only",
        "ecs": '"readonlyRootFilesystem": true',
        "marathon": '{"key": "read-only", "value": "true"}',
    }
    looks_at = "the read-only setting, and the directories that the image writes to if it was examined"
    cannot_see = "writes that cannot be derived from the image"
    cis = ("5.13",)
    trivy = ("KSV-0014",)
    kubesec = ("ReadOnlyRootFilesystem",)
    nsa = ("Immutable container file systems",)
    article = ("Security: Read-Only Filesystems",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.os == "windows":
            return NotApplicable("Windows needs a writable root file system")
        if workload.pod is not None and "windows" in (workload.pod.os, workload.pod.node_os):
            return NotApplicable("Windows needs a writable root file system")
        needs = _needs(image)
        if not workload.read_only_root:
            return self.failed(
                workload,
                evidence(workload, f"the root file system is writable{_advice(workload, needs)}", "read_only_root"),
            )
        missing = [path for path in needs or () if not _is_mounted(path, workload)]
        if missing:
            paths = ", ".join(f"/{path}" for path in missing[:10])
            return self.failed(
                workload,
                evidence(
                    workload,
                    f"read-only, but the image writes to {paths}: mount a tmpfs or a volume there",
                    "mounts",
                ),
            )
        return Passed()
