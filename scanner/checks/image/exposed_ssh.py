"""An SSH server in a container (CIS Docker 5.7)."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.checks._ports import ports_of
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity

_PROGRAMS = ("usr/sbin/sshd", "sbin/sshd", "usr/sbin/dropbear", "usr/bin/dropbear")


class ExposedSsh(ImageCheck):
    """An SSH server is another way into the container, with users and keys to manage."""

    id = "exposed-ssh"
    title = "SSH server"
    severity = Severity.HIGH
    remedy = "remove the SSH server and EXPOSE 22; use docker exec or the orchestrator's shell"
    looks_at = "config.ExposedPorts, and SSH server programs among the files"
    cannot_see = "renamed SSH servers, and servers that are installed at run time"
    cis = ("5.7",)
    trivy = ("DS-0004",)
    article = ("Security",)
    tags = ("network",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        found = [*self._ports(subject), *self._programs(subject)]
        if found:
            return Failed(tuple(found))
        if subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        return Passed()

    def _ports(self, subject: ImageSubject) -> Iterator[Evidence]:
        for port in ports_of(subject.image.config):
            if 22 in port:
                yield subject.setting(
                    f"port {port.text} is exposed", "EXPOSE", holding="22", pointer="/config/ExposedPorts"
                )

    def _programs(self, subject: ImageSubject) -> Iterator[Evidence]:
        for path in _PROGRAMS if subject.rootfs is not None else ():
            assert subject.rootfs is not None
            placed = subject.rootfs.files.get(path)
            if placed is not None:
                yield subject.evidence(f"/{path} is installed", layer_index=placed.layer, path=path)
