"""Upgrade of the distribution in a build (Dockle DKL-DI-0003)."""

from __future__ import annotations

from scanner.checks._history import Command, evidence, history
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Outcome, Severity

_VERBS = {
    "apt": ("dist-upgrade", "full-upgrade"),
    "apt-get": ("dist-upgrade",),
    "aptitude": ("full-upgrade", "dist-upgrade"),
    "zypper": ("dup", "dist-upgrade"),
    "dnf": ("system-upgrade", "distro-sync"),
    "yum": ("distro-sync", "distribution-synchronization"),
}


class DistUpgrade(ConfigCheck):
    """``dist-upgrade`` may replace and remove any package, so two builds of one Dockerfile differ. The old files remain
    in lower layers.
    """

    id = "dist-upgrade"
    title = "Distribution upgraded during the build"
    severity = Severity.MEDIUM
    remedy = "FROM a newer base image by its digest, and install named packages only"
    looks_at = (
        "shell commands of RUN in the history: apt dist-upgrade and full-upgrade, zypper dup, "
        "dnf distro-sync, do-release-upgrade"
    )
    cannot_see = "scripts that RUN calls; instructions of images without history (incomplete)"
    dockle = ("DKL-DI-0003",)
    trivy = ("DS-0024",)
    article = ("Lessons Learned: Treat images as artifacts",)
    tags = ("build", "history")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        return lines.outcome(
            [
                evidence(subject, run, f"{c} upgrades the distribution")
                for run in lines.runs()
                for c in run.commands
                if _upgrades(c)
            ]
        )


def _upgrades(command: Command) -> bool:
    return command.name == "do-release-upgrade" or any(v in command.operands for v in _VERBS.get(command.name, ()))
