"""Ports below 1024 (CIS Docker 5.8)."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.checks._ports import ports_of
from scanner.checks.base import ALLOW, ConfigCheck, ImageSubject
from scanner.model.finding import Evidence, Outcome, Severity


class PrivilegedPorts(ConfigCheck):
    """Listening on a port below 1024 may need root or NET_BIND_SERVICE, depending on the runtime."""

    id = "privileged-ports"
    title = "Exposes a port below 1024"
    severity = Severity.LOW
    remedy = "let the program listen on a port above 1023, and EXPOSE that port"
    looks_at = "config.ExposedPorts"
    cannot_see = "ports that are not exposed; net.ipv4.ip_unprivileged_port_start of the host"
    cis = ("5.8",)
    article = ("Security: Run as Non-Root",)
    tags = ("network",)
    parameters = ALLOW

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        return self.judged(self._low(subject), subject.parameters)

    def _low(self, subject: ImageSubject) -> Iterator[Evidence]:
        for port in ports_of(subject.image.config):
            if 0 < port.first < 1024:
                higher = port.first + 8000 if port.first < 1000 else 8080
                message = f"port {port.text} is below 1024; a program that listens on {higher} needs no privilege"
                yield subject.setting(
                    message, "EXPOSE", holding=str(port.first), pointer="/config/ExposedPorts", name=str(port.first)
                )
