"""Installation of recommended packages by apt (article: keep images small)."""

from __future__ import annotations

from scanner.checks._history import Command, evidence, history
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Outcome, Severity
from scanner.patterns import lazy

_OFF = lazy(rb"(?im)^[^\S\n]*APT::Install-Recommends\s+\"?(?:0|false|no|off)")
# apt -o APT::Install-Recommends=0
_OFF_HERE = lazy(r"(?i)apt::install-recommends=(?:0|false|no|off)")


class RecommendedPackages(ImageCheck):
    """Recommended packages are rarely needed in containers and must be pulled and patched."""

    id = "recommended-packages"
    title = "Recommended packages installed"
    severity = Severity.LOW
    remedy = "RUN apt-get update && apt-get install -y --no-install-recommends PACKAGE && rm -rf /var/lib/apt/lists/*"
    looks_at = "apt install commands in the history, and etc/apt/apt.conf.d of the image"
    cannot_see = "scripts that RUN calls; instructions of images without history (incomplete)"
    cis = ("4.3",)
    trivy = ("DS-0029",)
    article = ("Image Management: Keep Images Small",)
    tags = ("build", "history", "size")
    wants = ("etc/apt/apt.conf.d/*", "etc/apt/apt.conf")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        found = [
            evidence(subject, run, f"{str(c)[:120]} installs recommended packages, too")
            for run in lines.runs()
            for c in run.commands
            if _installs(c)
        ]
        if found and subject.rootfs is not None:
            settings = (subject.rootfs.content(p) for p in subject.rootfs.files if p.startswith("etc/apt/apt.conf"))
            if any(data is not None and _OFF.search(data) for data in settings):
                return lines.outcome(())
        return lines.outcome(found)


def _installs(command: Command) -> bool:
    return (
        command.name in ("apt", "apt-get", "aptitude")
        and "install" in command.operands
        and not command.has("--no-install-recommends", "--without-recommends")
        and not _OFF_HERE.search(str(command))
    )
