"""Volumes on system directories (Dockle DKL-DI-0002)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from scanner.checks.base import ALLOW, ConfigCheck, ImageSubject
from scanner.model.finding import Evidence, Outcome, Severity

_SOCKETS = ("docker.sock", "containerd.sock", "crio.sock", "podman.sock", "buildkitd.sock")
_TREES = (
    "dev",
    "proc",
    "sys",
    "etc",
    "boot",
    "bin",
    "sbin",
    "lib",
    "lib64",
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "run/containerd",
    "var/lib/docker",
)
_EXACT = ("", "usr", "var", "root", "home", "run", "var/run", "opt")


class SensitiveVolumes(ConfigCheck):
    """A volume on a system directory makes its programs and accounts writable, and keeps them after the image is fixed.

    A volume at the socket of a container runtime gives control over the host.
    """

    id = "sensitive-volumes"
    title = "Volume on a system directory"
    severity = Severity.HIGH
    remedy = "VOLUME /var/lib/app"
    looks_at = "config.Volumes: system directories and paths below them"
    cannot_see = "mounts that are set at run time"
    cis = ("5.6",)
    dockle = ("DKL-DI-0002",)
    article = ("Storage: Volumes for Persistent Data",)
    tags = ("config",)
    parameters = ALLOW

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        return self.judged(self._sensitive(subject), subject.parameters)

    def _sensitive(self, subject: ImageSubject) -> Iterator[Evidence]:
        for volume in subject.image.config.volumes:
            # Runtimes clean the path: ``/data/../etc`` is mounted on ``/etc``.
            path = posixpath.normpath("/" + volume).strip("/")
            if why := _reason_for_path(path):
                yield subject.setting(
                    f"VOLUME {volume} is {why}",
                    "VOLUME",
                    holding=volume,
                    path=path,
                    pointer="/config/Volumes",
                    name=volume,
                )


def _reason_for_path(path: str) -> str:
    if path.rpartition("/")[2] in _SOCKETS:
        return "the socket of a container runtime, which is equivalent to root on the host"
    if path in _EXACT:
        return "the whole file system" if not path else "a complete top-level directory"
    tree = next((tree for tree in _TREES if path == tree or path.startswith(f"{tree}/")), "")
    return f"in the system directory /{tree}" if tree else ""
