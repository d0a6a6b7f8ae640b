"""Ports of debuggers, remote control and unencrypted protocols."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.checks._ports import Port, ports_of
from scanner.checks.base import ALLOW, ConfigCheck, ImageSubject
from scanner.model.finding import Evidence, Outcome, Severity

_KNOWN = {
    21: "FTP: passwords in clear text",
    23: "Telnet: passwords in clear text",
    69: "TFTP: no authentication",
    111: "the RPC port mapper",
    135: "Windows RPC",
    139: "NetBIOS",
    445: "SMB",
    512: "rexec: no encryption",
    513: "rlogin: trust by address",
    514: "rsh: trust by address",
    873: "rsync without TLS",
    2375: "the Docker API without TLS: root on the host",
    3389: "remote desktop",
    4444: "the default of debuggers and attack tools",
    5005: "the Java debugger: runs any code",
    5678: "debugpy: runs any Python code",
    5858: "the Node.js debugger (old): runs any code",
    5900: "VNC",
    6000: "X11",
    9229: "the Node.js inspector: runs any code",
    10250: "the kubelet's API",
    11211: "memcached: no authentication",
}
_WIDE = 100  # ports: a range as wide as this is no list of services any more


class RiskyPorts(ConfigCheck):
    """Ports that a production image should not expose, and very large port ranges."""

    id = "risky-ports"
    title = "Exposes a debugger or remote control port"
    severity = Severity.MEDIUM
    remedy = "remove the EXPOSE instruction and the program"
    looks_at = "config.ExposedPorts: known ports, large ranges and invalid ports (exposed-ssh checks port 22)"
    cannot_see = "the program that listens on the port"
    cis = ("5.9",)
    trivy = ("DS-0008",)
    article = ("Security",)
    tags = ("network",)
    parameters = ALLOW

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        return self.judged(self._risky(subject), subject.parameters)

    def _risky(self, subject: ImageSubject) -> Iterator[Evidence]:
        for port in ports_of(subject.image.config):
            for message in _against(port):
                yield subject.setting(
                    message,
                    "EXPOSE",
                    holding=port.text.partition("/")[0],
                    pointer="/config/ExposedPorts",
                    name=port.text.partition("/")[0],
                )


def _against(port: Port) -> Iterator[str]:
    if not 0 < port.first <= port.last <= 65535:
        yield f"{port.text!r} is not a valid port"
    elif port.last - port.first >= _WIDE:
        yield f"{port.text} exposes {port.last - port.first + 1} ports"
    else:
        yield from (f"port {number} is {what}" for number, what in _KNOWN.items() if number in port)
