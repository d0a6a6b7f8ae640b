"""Working directory that is relative or a system directory (Trivy DS-0009, DS-0030)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from scanner.checks.base import ALLOW, ConfigCheck, ImageSubject
from scanner.model.finding import Evidence, Outcome, Severity
from scanner.model.image import instruction

_SYSTEM = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib64",
    "proc",
    "run",
    "sbin",
    "sys",
    "usr/bin",
    "usr/lib",
    "usr/sbin",
    "root",
)


class WorkingDirectory(ConfigCheck):
    """A relative WORKDIR depends on the base image. In a system directory, a program writes its files there."""

    id = "working-directory"
    title = "Working directory is relative or a system directory"
    severity = Severity.LOW
    remedy = "WORKDIR /app"
    looks_at = "config.WorkingDir, and WORKDIR instructions in the history"
    cannot_see = "directory changes by the program"
    trivy = ("DS-0009", "DS-0030")
    article = ("Security: Read-Only Filesystems",)
    tags = ("config",)
    parameters = ALLOW

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        return self.judged(self._unsuitable(subject), subject.parameters)

    def _unsuitable(self, subject: ImageSubject) -> Iterator[Evidence]:
        directory = subject.image.config.working_dir
        if directory and not directory.startswith("/") and subject.image.platform.os != "windows":
            yield subject.setting(f"{directory!r} is relative", "WORKDIR", pointer="/config/WorkingDir", name=directory)
        path = posixpath.normpath("/" + directory).strip("/")
        if any(path == tree or path.startswith(f"{tree}/") for tree in _SYSTEM):
            yield subject.setting(f"/{path} is a system directory", "WORKDIR", pointer="/config/WorkingDir", path=path)
        for index, entry in enumerate(subject.image.config.history):
            line = instruction(entry.created_by)
            where = line.removeprefix("WORKDIR ").strip()
            if (
                line.startswith("WORKDIR ")
                and where
                and not where.startswith(("/", "$", "\\", '"/'))
                and where[1:2] != ":"
            ):
                message = f"WORKDIR {where} is relative and depends on the base image"
                yield Evidence(message, instruction=line, history_index=index, pointer=f"/history/{index}", name=where)
