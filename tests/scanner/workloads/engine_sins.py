"""Containers of a real Docker engine, each with a sin of its own, and what must be found of each."""

from __future__ import annotations

import io
import platform
import struct
import tarfile
from dataclasses import dataclass, field
from typing import Any

IMAGE = "shop/web:latest"
_PAUSE = {  # machine code: pause(2) for ever
    "x86_64": (62, b"\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7"),
    # ppoll(NULL, 0, NULL, NULL): this machine has no pause(2)
    "aarch64": (183, bytes.fromhex("080980d2000080d2010080d2020080d2030080d2010000d4f9ffff17")),
}


@dataclass(frozen=True)
class Sin:
    """How a container is created, and the checks that must fail for it."""

    options: dict[str, Any]
    checks: frozenset[str] = field(default_factory=frozenset)


GOOD: dict[str, Any] = {
    "network_mode": "none",
    "user": "10001:10001",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "32m",
    "nano_cpus": 100_000_000,
    "pids_limit": 20,
    "restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "log_config": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
    "healthcheck": {"test": ["CMD", "/pause"], "interval": 3_600_000_000_000},
}
_SOCKET = "/var/run/docker.sock"

SINS: dict[str, Sin] = {
    "well-run": Sin({}),
    "privileged": Sin({"privileged": True}, frozenset({"privileged-container", "kept-capabilities"})),
    "host-namespaces": Sin(
        {"network_mode": "host", "pid_mode": "host", "ipc_mode": "host", "uts_mode": "host"},
        frozenset({"host-network", "host-pid", "host-ipc", "host-uts"}),
    ),
    "socket": Sin(
        {"volumes": [f"{_SOCKET}:{_SOCKET}"]},
        frozenset({"docker-socket", "sensitive-host-mounts", "unneeded-writable-mounts"}),
    ),
    "capabilities": Sin({"cap_add": ["SYS_ADMIN", "NET_RAW"]}, frozenset({"added-capabilities", "kept-capabilities"})),
    "unconfined": Sin(
        {"security_opt": ["no-new-privileges", "seccomp=unconfined"]},
        frozenset({"seccomp-off"}),
    ),
    "root": Sin({"user": "0"}, frozenset({"runs-as-root"})),
    "escalation": Sin({"security_opt": []}, frozenset({"privilege-escalation"})),
    "writable": Sin({"read_only": False}, frozenset({"writable-root-filesystem"})),
    "unlimited": Sin(
        {"mem_limit": None, "nano_cpus": None, "pids_limit": None},
        frozenset({"memory-limit", "cpu-limit", "pids-limit"}),
    ),
    "secret": Sin({"environment": {"DB_PASSWORD": "not-a-real-one"}}, frozenset({"secrets-in-environment"})),
    "logs": Sin({"log_config": {"Type": "json-file", "Config": {}}}, frozenset({"logging-driver"})),
    "unwatched": Sin({"healthcheck": {"test": ["NONE"]}}, frozenset({"no-healthcheck"})),
    "devices": Sin({"devices": ["/dev/null:/dev/null:rwm"]}, frozenset({"host-devices"})),
}
# Of every container here: they run an image by the tag latest, and AppArmor and SELinux are as the machine has them.
EVERYWHERE = frozenset({"mutable-image-tag"})
# What the kernel decides. With cgroup v1 the engine's default is the host's cgroup namespace.
MACHINE = frozenset({"apparmor-profile", "host-cgroup-namespace", "selinux-labels"})


def archive() -> bytes:
    """A file system with one static program that does nothing, for ``docker import``."""
    number, code = _PAUSE[platform.machine()]
    size = 120 + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, number, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000) + code
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()
