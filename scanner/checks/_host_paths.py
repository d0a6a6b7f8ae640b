"""Paths of the host whose mount gives control over the host."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

# Sockets of container engines. Write access is equivalent to root on the host.
SOCKETS = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/var/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/var/run/podman/podman.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/k3s/containerd/containerd.sock",
    "\\\\.\\pipe\\docker_engine",
)
_SENSITIVE = (
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/sys",
    "/usr",
    "/bin",
    "/sbin",
    "/root",
    "/home",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/var/run",
    "/run",
    "/etc/kubernetes",
    "/var/log",
)
# Exceptions that are commonly mounted and harmless.
_HARMLESS = (
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/etc/ssl/certs",
    "/usr/share/ca-certificates",
)


# Directories of which nearly every project has its own: "../run" is seldom the host's.
_AMBIGUOUS = frozenset(("/", "/run", "/var"))


def normal(path: str) -> str:
    """Return the path without ``.``, ``..`` and double slashes.

    A relative path that climbs to an engine's socket, or to a directory that holds one, is returned as absolute: where
    it begins is not known here, and ``../../var/run/docker.sock`` is written for no other file.
    """
    # `/etc/../var/run` and `//var/run` name the same directory. Comparing the text as it is would miss them.
    if path.startswith("/"):
        return posixpath.normpath("/" + path.lstrip("/"))
    climbed = posixpath.normpath(path.partition("/")[2] if path.startswith("~") else path)
    if not climbed.startswith("../"):
        return path
    rest = "/" + climbed[climbed.rindex("../") + 3 :]
    return rest if rest not in _AMBIGUOUS and reaches(rest, SOCKETS) else path


def reaches(path: str, targets: Iterable[str]) -> bool:
    """Return whether a mount of ``path`` contains one of the targets, which may be ``path`` itself."""
    own = normal(path)
    # A mount of a parent gives the same access: /var/run contains the engine's socket.
    return any(own == target or target.startswith(own.rstrip("/") + "/") for target in targets)


def is_sensitive(path: str) -> bool:
    """Return whether a mount of ``path`` exposes files that the host depends on."""
    # Compose replaces ~ by the home directory of its user, which is below /home or /root.
    if path == "~" or path.startswith("~/"):
        return True
    own = normal(path)
    if own == "/":
        return True
    if any(own == harmless or own.startswith(f"{harmless}/") for harmless in _HARMLESS):
        return False
    below = any(own == sensitive or own.startswith(f"{sensitive}/") for sensitive in _SENSITIVE)
    return below or reaches(own, _SENSITIVE)
