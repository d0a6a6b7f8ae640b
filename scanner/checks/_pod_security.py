"""The Pod Security Standards by Kubernetes version.

https://kubernetes.io/docs/concepts/security/pod-security-standards/, and their implementation
``k8s.io/pod-security-admission/policy``. Versions up to 1.37 are known; later ones use the rules of the newest known.
"""

from __future__ import annotations

from scanner.model.workload import PodSettings, Workload

# Kubernetes 1.37: later versions are read by its rules.
_NEWEST = 37
_SYSCTLS = (
    (
        0,
        (
            "kernel.shm_rmid_forced",
            "net.ipv4.ip_local_port_range",
            "net.ipv4.tcp_syncookies",
            "net.ipv4.ping_group_range",
            "net.ipv4.ip_unprivileged_port_start",
        ),
    ),
    (27, ("net.ipv4.ip_local_reserved_ports",)),
    (
        29,
        (
            "net.ipv4.tcp_keepalive_time",
            "net.ipv4.tcp_fin_timeout",
            "net.ipv4.tcp_keepalive_intvl",
            "net.ipv4.tcp_keepalive_probes",
        ),
    ),
    (32, ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")),
    (37, ("net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat")),
)
# Pod Security Standards, baseline, "SELinux".
_SELINUX = frozenset(("", "container_t", "container_init_t", "container_kvm_t"))


def minor(pod: PodSettings) -> int:
    """Return the minor version whose rules apply; the newest known by default."""
    text = pod.kubernetes_version.removeprefix("v").partition(".")[2]
    # An unreadable version gets the newest rules. `isdigit` alone accepts other scripts' digits, which `int` would
    # read.
    return min(int(text), _NEWEST) if text.isascii() and text.isdigit() else _NEWEST


def relaxed_by_user_namespace(pod: PodSettings) -> bool:
    """Return whether a pod may run as root because it has its own user namespace (since 1.35, KEP-127)."""
    return pod.host_users is False and minor(pod) >= 35


def exempt_as_windows(pod: PodSettings) -> bool:
    """Return whether rules about Linux do not apply because the pod sets ``os.name: windows`` (since 1.25)."""
    return pod.os == "windows" and minor(pod) >= 25


def safe_sysctls(workload: Workload) -> frozenset[str]:
    """Return the safe sysctls of the workload's Kubernetes version.

    Docker and ECS allow all namespaced sysctls; the newest list is used for them.
    """
    version = minor(workload.pod) if workload.pod else _NEWEST
    return frozenset(name for since, names in _SYSCTLS if version >= since for name in names)


def selinux_types(workload: Workload) -> frozenset[str]:
    """Return the SELinux types that a container may set."""
    if workload.pod is not None and minor(workload.pod) < 31:
        return _SELINUX
    return _SELINUX | {"container_engine_t"}
