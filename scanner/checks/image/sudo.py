"""sudo in the build or in the image (Dockle DKL-DI-0001)."""

from __future__ import annotations

from scanner.checks._history import evidence, failed, history
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Incomplete, Outcome, Severity

_PROGRAMS = ("usr/bin/sudo", "bin/sudo", "usr/local/bin/sudo", "usr/bin/doas", "usr/local/bin/doas")
_NAMES = frozenset(("sudo", "doas"))


class Sudo(ImageCheck):
    """Build steps run as root, or as another user on purpose. In a container, sudo lets that user become root again."""

    id = "sudo"
    title = "sudo is used or installed"
    severity = Severity.MEDIUM
    remedy = "USER root for the steps that need it, then USER 10001; do not install sudo"
    looks_at = "shell commands of RUN in the history, and the programs sudo and doas among the files"
    cannot_see = "similar programs; scripts that RUN calls"
    dockle = ("DKL-DI-0001",)
    trivy = ("DS-0010",)
    article = ("Security: Run as Non-Root",)
    tags = ("build", "history", "users")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        found = [
            evidence(subject, run, f"a build step runs {name}")
            for run in lines.runs()
            for command in run.commands
            for name in (*command.wrappers, command.name)
            if name in _NAMES
        ]
        if subject.rootfs is not None:
            for path in _PROGRAMS:
                if (placed := subject.rootfs.files.get(path)) is not None:
                    found.append(subject.evidence(f"/{path} is installed", layer_index=placed.layer, path=path))
        if found:
            return failed(found)
        return Incomplete("layers_unreadable", subject.rootfs_reason) if subject.rootfs is None else lines.outcome(())
