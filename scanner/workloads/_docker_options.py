"""Options in the syntax of Docker's command line, API and Compose files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from scanner.model.workload import Mount, PortBinding, SelinuxOptions
from scanner.patterns import lazy

_MODES = lazy(r"(?:ro|rw|z|Z|nocopy|cached|delegated|consistent|[r]?(?:shared|slave|private))")
_PROPAGATION = frozenset(("shared", "rshared", "slave", "rslave", "private", "rprivate"))
# Of one range: "1-65535" would be a port binding for each.
_MAX_PORTS = 200
# https://docs.docker.com/engine/swarm/services/#placement-constraints
_CONSTRAINT = lazy(r"\s*([\w.-]+)\s*(==|!=)\s*(\S+)\s*")
_OS_LABELS = frozenset(f"{kind}.labels.{name}" for kind in ("node", "engine") for name in ("os", "ostype", "platform"))


@dataclass(frozen=True)
class SecurityOptions:
    """The values of ``security_opt``. None: not set."""

    allow_privilege_escalation: bool | None = None
    seccomp: str | None = None  # the profile's name; Unconfined: none
    apparmor: str | None = None  # the profile's name; Unconfined: none


def capabilities(names: Iterable[str]) -> tuple[str, ...]:
    """Return capability names in upper case without ``CAP_``."""
    return tuple(name.strip().upper().removeprefix("CAP_") for name in names)


def security_options(options: Iterable[str]) -> SecurityOptions:
    """Parse ``no-new-privileges``, ``seccomp=…`` and ``apparmor=…``. The separator is ``=`` or the older ``:``."""
    escalation, seccomp, apparmor = None, None, None
    for option in options:
        name, value = _split(option)
        if name == "no-new-privileges":
            # The option alone means true. `no-new-privileges:false` switches it off again, and must not be read as
            # protection.
            escalation = value.lower() not in ("", "true", "1")
        elif name == "seccomp":
            seccomp = "Unconfined" if value.lower() == "unconfined" else value
        elif name == "apparmor":
            apparmor = "Unconfined" if value.lower() == "unconfined" else value
        elif name == "systempaths" and value.lower() == "unconfined":
            pass  # the check proc-mount reads it from security_opt
    return SecurityOptions(escalation, seccomp, apparmor)


def _split(option: str) -> tuple[str, str]:
    found = re.match(r"\s*([A-Za-z-]+)\s*(?:[=:]\s*(.*))?$", option, re.DOTALL)
    return (found[1].lower(), (found[2] or "").strip()) if found else (option, "")


def bind_mount(mount: Mount, options: Mapping[str, str]) -> Mount:
    """Return the mount of a volume with these driver options: a bind mount if they bind a path of the host.

    ``{type: none, o: bind, device: /}`` mounts the host's root under the harmless name of a volume, and
    ``{type: ext4, device: /dev/sda1}`` its whole disk.
    """
    flags = [flag.strip() for flag in options.get("o", "").split(",")]
    device = options.get("device", "")
    binds = bool({"bind", "rbind"} & set(flags)) and device.startswith("/")
    if not binds and not re.match(r"/+dev/", device):
        return mount
    read_only = mount.read_only or "ro" in flags
    return Mount("bind", mount.target, options["device"], read_only, mount.propagation, "local")


def selinux_of(options: Iterable[str]) -> SelinuxOptions | None:
    """Return the SELinux labels of ``label=…`` options. ``label=disable`` gives the type ``disabled``."""
    found: dict[str, str] = {}
    for option in options:
        name, value = _split(option)
        if name != "label":
            continue
        key, _, of = value.partition(":")
        if key == "disable":
            found["type"] = "disabled"
        elif key in ("user", "role", "type", "level"):
            found[key] = of
    return SelinuxOptions(**found) if found else None


def is_encrypted(options: Mapping[str, str]) -> bool:
    """Return whether driver options enable IPsec for an overlay network. The option may have an empty value."""
    return "encrypted" in options and options["encrypted"].lower() not in ("false", "0")


def parse_ports(text: str) -> Sequence[PortBinding] | None:
    """Parse ``[[IP:]HOST:]CONTAINER[/PROTOCOL]`` with ranges. None: not a port. Host port 0: Docker chooses one."""
    address, slash, protocol = text.strip().partition("/")
    ip, hosts, targets = _port_parts(address)
    target, host = _range(targets), _range(hosts)
    if not target or (hosts and not host) or (host and len(host) != len(target) and len(target) != 1):
        return None
    if (ip and not _is_address(ip)) or (slash and protocol.lower() not in ("tcp", "udp", "sctp")):
        return None
    protocol = protocol.lower() or "tcp"
    if len(target) > _MAX_PORTS:  # large ranges are represented by their first and last port
        target, host = [target[0], target[-1]], [host[0], host[-1]] if host else []
    if host and len(target) == 1:
        host = host[:1]
    return [PortBinding(port, host[number] if host else 0, ip, protocol) for number, port in enumerate(target)]


def _port_parts(address: str) -> tuple[str, str, str]:
    """Return IP address, host ports and container ports.

    Splits from the right, because IPv6 addresses contain colons.
    """
    rest, colon, target = address.rpartition(":")
    if not colon:
        return "", "", target
    ip, colon, host = rest.rpartition(":")
    return (ip.strip("[]"), host, target) if colon else ("", rest, target)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _range(text: str) -> list[int]:
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    return list(range(low, high + 1)) if high <= 65535 else []


def short_mount(text: str, *, compose: bool = False) -> Mount:
    """Parse ``[SOURCE:]TARGET[:MODES]``. If the source is a path, it is a bind mount, otherwise a named volume.

    ``compose``: a source that begins with ``.`` or ``~`` is a path, too.
    """
    parts = _parts(text)
    modes: list[str] = []
    if (
        len(parts) > 1
        and all(_MODES.fullmatch(each) for each in parts[-1].split(","))
        and (len(parts) == 3 or not parts[-1].startswith("/"))
    ):
        modes = parts.pop().split(",")
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    is_path = (
        source.startswith(("/", "\\"))
        or bool(re.match(r"[A-Za-z]:[\\/]", source))
        or (compose and source.startswith((".", "~")))
    )
    propagation = next((mode for mode in modes if mode in _PROPAGATION), "")
    return Mount("bind" if is_path else "volume", target, source, "ro" in modes, propagation)


def long_mount(text: str) -> Mount:
    """Parse the value of ``docker run --mount``: ``type=bind,source=/a,target=/b,readonly``."""
    found: dict[str, str] = {}
    options: dict[str, str] = {}
    # Docker parses the value as one line of CSV, so that a quoted path may contain a comma.
    for each in next(csv.reader([text]), []):
        name, _, value = each.strip().partition("=")
        if name.lower() == "volume-opt":
            key, _, setting = value.partition("=")
            options[key] = setting
        else:
            found[name.lower()] = value
    read_only = any(found.get(each, "false").lower() in ("", "true", "1") for each in ("readonly", "ro"))
    target = found.get("target") or found.get("destination") or found.get("dst") or ""
    source, propagation = found.get("source") or found.get("src") or "", found.get("bind-propagation", "")
    mount = Mount(found.get("type", "volume").lower(), target, source, read_only, propagation)
    return bind_mount(mount, options) if mount.kind == "volume" else mount


def os_of_constraints(constraints: Iterable[str]) -> str:
    """Return ``windows`` if placement constraints of Swarm allow nodes with Windows alone, else an empty text."""
    for text in constraints:
        found = _CONSTRAINT.fullmatch(text)
        if found is None:
            continue
        key, equal, value = found[1].lower(), found[2] == "==", found[3].lower()
        # A node has one of two systems. A label is the administrator's, and says it in more words: windows-2022.
        if key == "node.platform.os" and (value == "windows" if equal else value == "linux"):
            return "windows"
        if key in _OS_LABELS and equal and value.startswith("windows"):
            return "windows"
    return ""


def _parts(text: str) -> list[str]:
    """Split at colons, except at the colon of a Windows drive."""
    parts: list[str] = []
    for part in text.split(":"):
        if (
            parts
            and re.fullmatch(r"[A-Za-z]", parts[-1])
            and part[:1] in ("\\", "/")
            and (len(parts) > 1 or part[:1] == "\\")
        ):
            parts[-1] += f":{part}"
        else:
            parts.append(part)
    return parts
