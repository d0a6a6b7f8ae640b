"""The Docker engine: its settings from ``docker info`` and ``daemon.json``, and access to its API.

https://docs.docker.com/reference/api/engine/version/v1.47/#tag/System/operation/SystemInfo
https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from scanner.errors import RemoteError, ScannerError, UsageError
from scanner.files import read_whole
from scanner.model.untrusted import clean_text
from scanner.model.workload import EngineFacts, Network, Workload
from scanner.workloads._documents import Document, parse
from scanner.workloads.base import Node, NodeOrigin

DAEMON_FILE = Path("/etc/docker/daemon.json")
_MAX_DAEMON_FILE = 1 << 20
# https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file, and those that Docker 29 has left out
_DAEMON_KEYS = frozenset(
    (
        "allow-direct-routing",
        "allow-nondistributable-artifacts",
        "api-cors-header",
        "authorization-plugins",
        "bip",
        "bridge",
        "bridge-accept-fwmark",
        "builder",
        "cdi-spec-dirs",
        "cgroup-parent",
        "cluster-advertise",
        "cluster-store",
        "cluster-store-opts",
        "containerd",
        "containerd-namespace",
        "containerd-plugins-namespace",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "data-root",
        "debug",
        "default-address-pools",
        "default-cgroupns-mode",
        "default-gateway",
        "default-gateway-v6",
        "default-ipc-mode",
        "default-network-opts",
        "default-runtime",
        "default-shm-size",
        "default-ulimits",
        "deprecated-key-path",
        "dns",
        "dns-opts",
        "dns-search",
        "exec-opts",
        "exec-root",
        "experimental",
        "features",
        "firewall-backend",
        "fixed-cidr",
        "fixed-cidr-v6",
        "graph",
        "group",
        "host",
        "host-gateway-ip",
        "host-gateway-ips",
        "hosts",
        "http-proxy",
        "https-proxy",
        "icc",
        "init",
        "init-path",
        "insecure-registries",
        "ip",
        "ip-forward",
        "ip-forward-no-drop",
        "ip-masq",
        "ip6tables",
        "iptables",
        "ipv6",
        "labels",
        "live-restore",
        "log-driver",
        "log-format",
        "log-level",
        "log-opts",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "metrics-addr",
        "min-api-version",
        "mtu",
        "no-new-privileges",
        "no-proxy",
        "node-generic-resources",
        "oom-score-adjust",
        "pidfile",
        "proxies",
        "raw-logs",
        "registry-mirrors",
        "rootless-port-driver",
        "runtimes",
        "seccomp-profile",
        "selinux-enabled",
        "shutdown-timeout",
        "storage-driver",
        "storage-opts",
        "swarm-default-advertise-addr",
        "tls",
        "tlscacert",
        "tlscert",
        "tlskey",
        "tlsverify",
        "userland-proxy",
        "userland-proxy-path",
        "userns-remap",
    )
)
_PATHS: Mapping[str, tuple[str, ...]] = {
    "inter_container": ("icc", "daemon:icc"),
    "iptables": ("iptables", "daemon:iptables"),
    "log_level": ("log-level", "daemon:log-level"),
    "logging_driver": ("log-driver", "daemon:log-driver", "LoggingDriver"),
    "insecure_registries": ("insecure-registries", "daemon:insecure-registries", "RegistryConfig"),
    "userns_remap": ("userns-remap", "daemon:userns-remap", "SecurityOptions"),
    "seccomp": ("seccomp-profile", "daemon:seccomp-profile", "SecurityOptions"),
    "no_new_privileges": ("no-new-privileges", "daemon:no-new-privileges"),
    "live_restore": ("live-restore", "daemon:live-restore", "LiveRestoreEnabled"),
    "userland_proxy": ("userland-proxy", "daemon:userland-proxy"),
    "experimental": ("experimental", "daemon:experimental", "ExperimentalBuild"),
    "authorization_plugins": ("authorization-plugins", "daemon:authorization-plugins", "Plugins/Authorization"),
    "tcp_hosts": ("hosts", "daemon:hosts"),
    "storage_driver": ("storage-driver", "daemon:storage-driver", "Driver"),
    "swarm_active": ("Swarm",),
}


def is_info(value: Any) -> bool:
    """Return whether this is output of ``docker info --format '{{json .}}'``."""
    return isinstance(value, dict) and "ServerVersion" in value and "SecurityOptions" in value


def is_daemon_file(value: Any) -> bool:
    """Return whether this is a ``daemon.json``: it contains only known options of dockerd."""
    return isinstance(value, dict) and bool(value) and value.keys() <= _DAEMON_KEYS


def engine(info: Node | None, daemon: Node | None, networks: Mapping[str, Network] | None = None) -> Workload:
    """Return the engine as a workload. Values that neither ``info`` nor ``daemon.json`` contains are None.

    Raises UsageError.
    """
    facts = EngineFacts("docker engine")
    if info is not None:
        facts = _from_info(info)
    if daemon is not None:
        facts = _from_daemon(facts, daemon)
    if networks is not None:
        facts = replace(
            facts, overlay_networks=tuple(dict.fromkeys(n for n in networks.values() if n.driver == "overlay"))
        )
    base = info or daemon
    assert base is not None
    roots = {"daemon": daemon if daemon is not None else base}
    return Workload(
        facts.name, "", "docker", kind="engine", unit=facts.name, engine=facts, origin=NodeOrigin(base, _PATHS, roots)
    )


def _from_info(node: Node) -> EngineFacts:
    options = {name: rest for name, _, rest in (_option(text) for text in node.get("SecurityOptions").texts())}
    swarm = node.get("Swarm").mapping()
    cluster = swarm.at("Cluster", "Spec").mapping()
    registries = node.get("RegistryConfig").mapping()
    # The engine always lists loopback as insecure; it is not the operator's choice, and no network is crossed.
    insecure = [
        cidr for cidr in registries.get("InsecureRegistryCIDRs").texts() if cidr not in ("127.0.0.0/8", "::1/128")
    ]
    insecure += [
        name for name, each in registries.get("IndexConfigs").members() if each.get("Secure").boolean() is False
    ]
    active = swarm.get("LocalNodeState").text() == "active"
    expiry = cluster.at("CAConfig", "NodeCertExpiry").number()
    return EngineFacts(
        name=f"docker engine {node.get('Name').text() or ''}".strip(),
        version=node.get("ServerVersion").text() or "",
        os_type=node.get("OSType").text() or "",
        rootless="rootless" in options,
        storage_driver=node.get("Driver").text() or "",
        logging_driver=node.get("LoggingDriver").text() or "",
        insecure_registries=tuple(insecure),
        userns_remap="userns" in options,
        # The engine lists a profile if it has seccomp. If none is listed, containers run without a filter.
        seccomp=options.get("seccomp", "").removeprefix("profile=") if "seccomp" in options else "unconfined",
        # Absent means unknown, because old engines do not list it. `daemon.json` decides then.
        no_new_privileges=True if "no-new-privileges" in options else None,
        live_restore=node.get("LiveRestoreEnabled").boolean(),
        experimental=node.get("ExperimentalBuild").boolean(),
        authorization_plugins=node.at("Plugins", "Authorization").texts(),
        swarm_active=active,
        swarm_managers=swarm.get("Managers").integer() if active else None,
        swarm_nodes=swarm.get("Nodes").integer() if active else None,
        swarm_autolock=cluster.at("EncryptionConfig", "AutoLockManagers").boolean() if cluster.value else None,
        node_certificate_days=expiry / 86_400e9 if expiry else None,
        images=node.get("Images").integer(),
        containers=node.get("Containers").integer(),
        containers_running=node.get("ContainersRunning").integer(),
    )


def _option(text: str) -> tuple[str, str, str]:
    """Split ``name=seccomp,profile=builtin`` into (seccomp, ",", profile=builtin)."""
    return text.removeprefix("name=").partition(",")


def _from_daemon(facts: EngineFacts, node: Node) -> EngineFacts:
    """Add the settings of daemon.json. Missing ones have dockerd's defaults."""
    hosts = tuple(host for host in node.get("hosts").texts() if host.startswith("tcp://"))
    remap = node.get("userns-remap").text()
    proxy, iptables, icc = (node.get(key).boolean() for key in ("userland-proxy", "iptables", "icc"))
    level = node.get("log-level").text() or ("debug" if node.get("debug").boolean() else None)
    return replace(
        facts,
        logging_driver=node.get("log-driver").text() or facts.logging_driver or "json-file",
        log_options=tuple((key, value.text() or "") for key, value in node.get("log-opts").members()),
        log_level=level or "info",
        inter_container=True if icc is None else icc,
        iptables=True if iptables is None else iptables,
        insecure_registries=tuple(
            dict.fromkeys((*(facts.insecure_registries or ()), *node.get("insecure-registries").texts()))
        ),
        userns_remap=bool(remap) if facts.userns_remap is None else facts.userns_remap,
        seccomp=node.get("seccomp-profile").text() or facts.seccomp,
        no_new_privileges=bool(node.get("no-new-privileges").boolean()),
        live_restore=bool(node.get("live-restore").boolean()) if facts.live_restore is None else facts.live_restore,
        userland_proxy=True if proxy is None else proxy,
        experimental=bool(node.get("experimental").boolean()) if facts.experimental is None else facts.experimental,
        authorization_plugins=facts.authorization_plugins or node.get("authorization-plugins").texts(),
        tcp_hosts=hosts,
        tls_verify=bool(node.get("tlsverify").boolean()),
        default_ulimits=tuple(name for name, _ in node.get("default-ulimits").members()),
        cgroup_parent=node.get("cgroup-parent").text() or "",
        storage_driver=node.get("storage-driver").text() or facts.storage_driver,
    )


@contextmanager
def connection() -> Iterator[Any]:
    """Yield a client of the engine (``DOCKER_HOST``, ``DOCKER_TLS_VERIFY``, ``DOCKER_CERT_PATH`` apply).

    Raises RemoteError if it does not answer.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=60)
    except DockerException as error:
        raise _unreachable(error) from None
    try:
        yield client
    except (DockerException, OSError) as error:
        raise _unreachable(error) from None
    finally:
        client.close()


def _unreachable(error: Exception) -> ScannerError:
    return RemoteError(
        f"the Docker engine does not answer: {_system_reason(error)}",
        reason="engine_unreachable",
        retryable=False,
        hint="start it, set DOCKER_HOST, or audit a saved inspect: dockwarden audit docker:FILE",
    )


def _system_reason(error: BaseException) -> str:
    """The operating system's reason, which docker and requests wrap in the text of three Python errors."""
    cause: BaseException | None = error
    while cause is not None:
        for each in (cause, *(arg for arg in cause.args if isinstance(arg, OSError))):
            if isinstance(each, OSError) and each.strerror:
                return each.strerror
        cause = cause.__cause__ or cause.__context__
    return clean_text(str(error), 200) or type(error).__name__


def as_node(value: Any, name: str) -> Node:
    """Return an answer of the API as a document's node."""
    return Node(Document(value, name))


def local_daemon_file() -> Node | None:
    """Return this machine's daemon.json, or None if it cannot be read. Its settings are then unknown, not defaults."""
    try:
        text = read_whole(DAEMON_FILE, _MAX_DAEMON_FILE)
    except UsageError:
        return None
    documents = parse(text, str(DAEMON_FILE))
    return Node(documents[0]) if documents else None


def bridge_allows_traffic(network: Node) -> bool | None:
    """Return ``icc`` of the default bridge, or None if it is not set.

    https://docs.docker.com/engine/network/drivers/bridge/#options
    """
    value = network.get("Options").mapping().get("com.docker.network.bridge.enable_icc").text()
    return None if value is None else value.lower() == "true"
