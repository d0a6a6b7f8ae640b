"""The services of a Compose or stack file as workloads.

https://github.com/compose-spec/compose-spec/blob/main/05-services.md
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from scanner.errors import UsageError
from scanner.model.workload import (
    GPU,
    REQUESTED,
    Logging,
    Mount,
    Network,
    PortBinding,
    Probe,
    UpdateStrategy,
    Variable,
    Workload,
)
from scanner.workloads._compose_interpolation import env_file
from scanner.workloads._compose_model import as_mapping, assemble
from scanner.workloads._docker_options import (
    bind_mount,
    capabilities,
    is_encrypted,
    os_of_constraints,
    parse_ports,
    security_options,
    selinux_of,
    short_mount,
)
from scanner.workloads._documents import Document
from scanner.workloads._quantities import ram, seconds, whole_number
from scanner.workloads.base import Files, LocalFiles, Node, NodeOrigin

T = TypeVar("T")
_TRUE = ("true", "yes", "y", "on", "1", "t")
_FALSE = ("false", "no", "n", "off", "0", "f")
_MOST_JOINED = 20  # services whose namespaces are joined in a row
_MOST_OTHERS = 200  # services whose volumes one service takes
_HOOKS = ("post_start", "pre_stop")
_MOST_HOOKS = 20  # of a kind, whose variables have a line
# The socket of an engine, or the directory that holds one.
_SOCKET_FILE = re.compile(r"\.sock$|(?:^|/)run(?:/|$)")
_SIMPLE = (
    "image",
    "user",
    "cap_add",
    "cap_drop",
    "security_opt",
    "cgroup_parent",
    "sysctls",
    "ulimits",
    "restart",
    "ports",
    "environment",
    "healthcheck",
    "logging",
    "networks",
    "labels",
)
_PATHS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in _SIMPLE},
    "groups": ("group_add",),
    "read_only_root": ("read_only",),
    "allow_privilege_escalation": ("security_opt",),
    "seccomp": ("security_opt",),
    "apparmor": ("security_opt",),
    "selinux": ("security_opt",),
    "privileged": ("privileged", "post_start", "pre_stop"),
    "devices": ("devices", "device_cgroup_rules", "gpus", "deploy/resources/reservations/devices"),
    "network_mode": ("network_mode", "networks"),
    "pid_mode": ("pid",),
    "ipc_mode": ("ipc",),
    "uts_mode": ("uts",),
    "cgroup_mode": ("cgroup",),
    "userns_mode": ("userns_mode",),
    "memory": ("deploy/resources/limits/memory", "mem_limit", "deploy/resources/limits", "deploy/resources", "deploy"),
    "memory_reservation": ("deploy/resources/reservations/memory", "mem_reservation", "deploy/resources", "deploy"),
    "cpus": ("deploy/resources/limits/cpus", "cpus", "deploy/resources/limits", "deploy/resources", "deploy"),
    "cpu_reservation": ("deploy/resources/reservations/cpus", "deploy/resources", "deploy"),
    "cpu_shares": ("cpu_shares",),
    "pids_limit": (
        "deploy/resources/limits/pids",
        "pids_limit",
        "deploy/resources/limits",
        "deploy/resources",
        "deploy",
    ),
    "mounts": ("volumes", "tmpfs", "secrets", "configs", "volumes_from", "use_api_socket"),
    "post_start": ("post_start",),
    "pre_stop": ("pre_stop",),
    "command": ("entrypoint",),
    "arguments": ("command",),
    "replicas": ("deploy/replicas", "scale", "deploy"),
    "update": ("deploy/update_config", "deploy"),
    "rollback": ("deploy/rollback_config", "deploy"),
    "restart": ("restart", "deploy/restart_policy", "deploy"),
    "image_pull_policy": ("pull_policy",),
    "namespace": (),
}


def read(
    documents: Sequence[Document], files: Files, variables: Mapping[str, str], source: str
) -> tuple[Workload, ...]:
    """Return the workloads of Compose files that are merged in order. Raises UsageError."""
    project = assemble(documents, files, variables)
    return tuple(
        _workload(name, node, project, files, variables, source) for name, node in project.get("services").members()
    )


def looks_like(document: Document) -> bool:
    """Return whether a document has services like a Compose file."""
    value = document.value
    return isinstance(value, dict) and isinstance(value.get("services"), dict) and "apiVersion" not in value


def boolean(node: Node) -> bool | None:
    """Return a boolean. Also accepts text, which interpolation produces. Raises UsageError."""
    if isinstance(node.value, str) and node.value.lower() in (*_TRUE, *_FALSE):
        return node.value.lower() in _TRUE
    return _check_is_known(node).boolean()


def integer(node: Node) -> int | None:
    """Return an integer, also from text. Raises UsageError."""
    if isinstance(node.value, str) and re.fullmatch(r"-?[0-9]{1,18}", node.value.strip()):
        return int(node.value)
    return _check_is_known(node).integer()


def number(node: Node) -> float | None:
    """Return a number, also from text. Raises UsageError."""
    if isinstance(node.value, str) and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", node.value.strip()):
        return float(node.value)
    return _check_is_known(node).number()


def _check_is_known(node: Node) -> Node:
    """Return the node. Raises UsageError if an unset variable left it empty: the default may not be what runs."""
    if node.value == "":
        raise node.error("is empty: set its variable, or audit the output of: docker compose config")
    return node


def _size(node: Node) -> int | None:
    text = _check_is_known(node).text()
    if text is None:
        return None
    found = ram(text)
    if found is None:
        raise node.error(f"is not a size: {text[:80]!r}")
    return found


def _time(node: Node) -> float | None:
    text = _check_is_known(node).text()
    if text is None:
        return None
    found = seconds(text)
    if found is None:
        raise node.error(f"is not a duration: {text[:80]!r}")
    return found


def _text_list(node: Node) -> tuple[str, ...]:
    """Return a list of texts. A single text is a list of one."""
    return node.texts() if isinstance(node.value, list | None) else (node.text() or "",)


def _shell_words(node: Node) -> tuple[str, ...] | None:
    """Return a command: a list, or text that is split like a shell does. Empty: it removes the image's command."""
    if node.value is None:
        return None
    if isinstance(node.value, str):
        try:
            return tuple(shlex.split(node.value))
        except ValueError as error:
            raise node.error(f"has unbalanced quotes: {error}") from None
    return node.texts()


def _workload(
    name: str, node: Node, project: Node, files: Files, variables: Mapping[str, str], source: str
) -> Workload:
    if node.mapping().value is None:
        raise node.error("is empty: a service needs an image or a build")
    image = node.get("image").string() or ""
    if not image and node.get("build").value is None and node.get("provider").value is None:
        _check_is_known(node.get("image"))
        raise node.error("has neither image nor build")
    deploy = node.get("deploy").mapping()
    limits, reservations = deploy.at("resources", "limits").mapping(), deploy.at("resources", "reservations").mapping()
    options = node.get("security_opt").texts()
    security = security_options(options)
    network_mode = _namespace(node, project, "network_mode") or node.get("net").string()
    if not network_mode and _joins_host_network(node, project):
        network_mode = "host"
    test, healthcheck = _healthcheck(node.get("healthcheck"))
    restart, retries = _restart(node, deploy)
    labels = {key: value.text() or "" for key, value in as_mapping(node.get("labels")).members()}
    labels |= {key: value.text() or "" for key, value in as_mapping(deploy.get("labels")).members()}
    title = project.get("name").text() or ""
    return Workload(
        name=" · ".join(filter(None, (title, name))),
        image=image,
        source=source,
        pointer=node.pointer,
        kind="service",
        namespace=title,
        unit=name,
        container=node.get("container_name").text() or name,
        labels=tuple(labels.items()),
        user=node.get("user").string(),
        groups=node.get("group_add").texts(),
        read_only_root=boolean(node.get("read_only")),
        # Repeated at the end, so that an explicit false is kept if no hook is privileged.
        privileged=boolean(node.get("privileged")) or _privileged_hook(node) or boolean(node.get("privileged")),
        allow_privilege_escalation=security.allow_privilege_escalation,
        cap_add=capabilities(node.get("cap_add").texts()),
        cap_drop=capabilities(node.get("cap_drop").texts()),
        security_opt=options,
        seccomp=security.seccomp,
        apparmor=security.apparmor,
        selinux=selinux_of(options),
        network_mode=network_mode,
        pid_mode=_namespace(node, project, "pid"),
        ipc_mode=_namespace(node, project, "ipc"),
        uts_mode=node.get("uts").string(),
        userns_mode=node.get("userns_mode").string(),
        cgroup_parent=node.get("cgroup_parent").string(),
        cgroup_mode=node.get("cgroup").string(),
        os=_os(node, deploy, source),
        sysctls=tuple((key, value.text() or "") for key, value in as_mapping(node.get("sysctls")).members()),
        ulimits=tuple(key for key, _ in node.get("ulimits").members()),
        memory=_first(_size(limits.get("memory")), _size(node.get("mem_limit"))),
        memory_reservation=_first(_size(reservations.get("memory")), _size(node.get("mem_reservation"))),
        cpus=_cpus(node, limits),
        cpu_reservation=number(reservations.get("cpus")),
        cpu_shares=integer(node.get("cpu_shares")),
        pids_limit=_first(integer(limits.get("pids")), integer(node.get("pids_limit"))),
        restart=restart,
        restart_max_retries=retries,
        mounts=(
            *(_with_root_path(each, node, files) for each in _mounts(node, project)),
            *(_sockets_as_files(node, project) if source != "swarm" else ()),
        ),
        ports=tuple(_ports(node)),
        networks=tuple(_networks(node, project, network_mode)),
        devices=tuple(_devices(node)),
        environment=tuple(_environment(node, files, variables)),
        command=_shell_words(node.get("entrypoint")),
        arguments=_shell_words(node.get("command")),
        healthcheck=healthcheck,
        healthcheck_test=test,
        probes=tuple(
            Probe(kind, command=_shell_words(hook.get("command")) or (), user=hook.get("user").string() or "")
            for kind, hook in _hooks(node)
        ),
        logging=_read_logging(node.get("logging")),
        replicas=_replicas(node, deploy, source),
        update=_update(deploy.get("update_config")),
        rollback=_update(deploy.get("rollback_config")),
        image_pull_policy=node.get("pull_policy").text(),
        origin=NodeOrigin(node, {**_PATHS, **_hook_paths(node)}, {"project": project}),
    )


def _namespace(node: Node, project: Node, key: str) -> str | None:
    """Return whose namespace a service uses: ``host`` also if it joins that of a service which uses the host's."""
    own = value = node.get(key).string()
    for _ in range(_MOST_JOINED):
        if value is None or not value.startswith("service:"):
            break
        joined = project.get("services").get(value.removeprefix("service:"))
        value = joined.get(key).string() if joined.value is not None else None
        if (
            value is None
            and key == "network_mode"
            and joined.value is not None
            and _joins_host_network(joined, project)
        ):
            value = "host"
    return value if value == "host" else own


def _joins_host_network(node: Node, project: Node) -> bool:
    """Return whether one of a service's networks is the engine's own ``host``, as stack files write it:
    ``{external: true, name: host}``.
    """
    declared = project.get("networks").mapping()
    for name in _network_names(node) or ["default"]:
        network = declared.get(name).mapping()
        external = network.get("external")
        nested = external.get("name").text() if isinstance(external.value, dict) else None
        is_external = isinstance(external.value, dict) or boolean(external)
        real = nested or network.get("name").text() or name
        if network.get("driver").text() == "host" or (is_external and real == "host"):
            return True
    return False


def _network_names(node: Node) -> list[str]:
    value = node.get("networks")
    return [name for name, _ in value.members()] if isinstance(value.value, dict) else list(value.texts())


def _replicas(node: Node, deploy: Node, source: str) -> int | None:
    """Return the number of replicas. Swarm starts one by default, except of a global service and of a job."""
    found = _first(integer(deploy.get("replicas")), integer(node.get("scale")))
    replicated = source == "swarm" and deploy.get("mode").text() in (None, "replicated")
    return 1 if found is None and replicated else found


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _privileged_hook(node: Node) -> bool | None:
    """Return whether a lifecycle hook is privileged: it runs in the same container."""
    return True if any(boolean(hook.get("privileged")) for _, hook in _hooks(node)) else None


def _hooks(node: Node) -> Iterator[tuple[str, Node]]:
    for kind in _HOOKS:
        yield from ((kind, hook) for hook in node.get(kind).items())


def _hook_paths(node: Node) -> dict[str, tuple[str, ...]]:
    """Return where variables are set, if lifecycle hooks can set them, too."""
    inside = [
        f"{kind}/{number}/environment" for kind in _HOOKS for number in range(len(node.get(kind).items()[:_MOST_HOOKS]))
    ]
    return {"environment": ("environment", *inside)} if inside else {}


def _os(node: Node, deploy: Node, source: str) -> str:
    # Each tool ignores the setting of the other one. What is ignored must not switch checks off.
    if source == "swarm":
        return os_of_constraints(deploy.at("placement", "constraints").texts())
    return "windows" if (node.get("platform").text() or "").lower().partition("/")[0] == "windows" else ""


def _cpus(node: Node, limits: Node) -> float | None:
    quota, period = integer(node.get("cpu_quota")), integer(node.get("cpu_period"))
    by_quota = quota / (period or 100_000) if quota and quota > 0 else None
    return _first(number(limits.get("cpus")), number(node.get("cpus")), by_quota)


def _healthcheck(node: Node) -> tuple[tuple[str, ...], bool | None]:
    if node.mapping().value is None:
        return (), None
    if boolean(node.get("disable")):
        return (), False
    test = node.get("test")
    if test.value == "NONE":  # meant to disable; as a command it would fail
        return ("NONE",), False
    words = ("CMD-SHELL", test.value) if isinstance(test.value, str) else test.texts()
    return (words, words[0] != "NONE") if words else ((), None)


def _restart(node: Node, deploy: Node) -> tuple[str | None, int | None]:
    policy = deploy.get("restart_policy").mapping()
    # `deploy.restart_policy` wins where both are given: Swarm ignores `restart`.
    if policy.value is not None:
        return policy.get("condition").text() or "any", integer(policy.get("max_attempts"))
    text = node.get("restart").text()
    kind, _, most = (text or "").partition(":")
    return (kind or None), whole_number(most)


def _mounts(node: Node, project: Node) -> Iterator[Mount]:
    yield from _own_mounts(node, project)
    yield from _mounts_of_others(node, project)


def _own_mounts(node: Node, project: Node) -> Iterator[Mount]:
    volumes = project.get("volumes").mapping()
    for item in node.get("volumes").items():
        if isinstance(item.value, str) and item.value.startswith(":"):
            raise item.error("has nothing before the colon: set its variable, or audit docker compose config")
        mount = _long_mount(item) if isinstance(item.value, dict) else short_mount(item.text() or "", compose=True)
        yield _with_driver(mount, volumes)
    for text in _text_list(node.get("tmpfs")):
        target, _, options = text.partition(":")
        size = next((ram(each[5:]) for each in options.split(",") if each.startswith("size=")), None)
        yield Mount("tmpfs", target, size=size)
    for kind, member, place in (("secret", "secrets", "/run/secrets/"), ("config", "configs", "/")):
        for item in node.get(member).items():
            name = (item.get("source").text() if isinstance(item.value, dict) else item.text()) or ""
            target = (item.get("target").text() if isinstance(item.value, dict) else None) or name
            yield Mount(kind, target if target.startswith("/") else f"{place}{target}", name, True)
    if boolean(node.get("use_api_socket")):
        # https://docs.docker.com/reference/compose-file/services/#use_api_socket
        yield Mount("bind", "/var/run/docker.sock", "/var/run/docker.sock", volume_type="use_api_socket")


def _with_root_path(mount: Mount, node: Node, files: Files) -> Mount:
    """Return the mount, by its absolute path if a relative one climbs to the root: ``../../etc`` in /srv/app."""
    if mount.kind != "bind" or not mount.source.startswith(".") or not isinstance(files, LocalFiles):
        return mount
    folder = posixpath.dirname(os.path.abspath(node.document.file))
    climbs = posixpath.normpath(mount.source).split("/").count("..")
    if climbs < len(folder.strip("/").split("/")):
        return mount  # as the author wrote it: it stays within what belongs to the project
    return replace(mount, source=posixpath.normpath(posixpath.join(folder, mount.source)))


def _sockets_as_files(node: Node, project: Node) -> Iterator[Mount]:
    """Yield sockets that are given to the container as a secret or config. Compose mounts the file of one."""
    for member, place in (("secrets", "/run/secrets/"), ("configs", "/")):
        for item in node.get(member).items():
            name = (item.get("source").text() if isinstance(item.value, dict) else item.text()) or ""
            file = project.get(member).mapping().get(name).mapping().get("file").text() or ""
            if _SOCKET_FILE.search(file):
                yield Mount("bind", f"{place}{name}", file, True, volume_type=member)


def _mounts_of_others(node: Node, project: Node) -> Iterator[Mount]:
    """Yield the volumes of the services in ``volumes_from``, of those in theirs, and so on, each service once.

    Ten services that name each other ten times would otherwise stand for billions of volumes.
    """
    waiting = [(text, False) for text in node.get("volumes_from").texts()]
    seen: set[tuple[str, bool]] = set()
    for text, read_only in waiting:  # grows meanwhile
        read_only = read_only or text.endswith(":ro")
        name = text.removesuffix(":ro").removesuffix(":rw")
        if (name, read_only) in seen:
            continue
        seen.add((name, read_only))
        other = project.get("services").get(name)
        if other.value is None or len(seen) > _MOST_OTHERS:  # container:NAME, whose volumes this file does not tell
            yield Mount("volume", "*", text, read_only, volume_type="volumes_from")
            continue
        for mount in _own_mounts(other.mapping(), project):
            if mount.kind in ("bind", "volume", "npipe"):
                yield replace(mount, read_only=mount.read_only or read_only)
        waiting += [(each, read_only) for each in other.get("volumes_from").texts()]


def _long_mount(node: Node) -> Mount:
    kind = node.get("type").text() or "volume"
    tmpfs = node.get("tmpfs").mapping()
    return Mount(
        kind,
        node.get("target").text() or "",
        node.get("source").text() or "",
        bool(boolean(node.get("read_only"))),
        node.at("bind", "propagation").text() or "",
        size=_size(tmpfs.get("size")),
    )


def _with_driver(mount: Mount, volumes: Node) -> Mount:
    """Return the mount with its driver. A named volume with bind options is returned as a bind mount."""
    if mount.kind != "volume" or not mount.source:
        return mount
    declared = volumes.get(mount.source).mapping()
    options = {key: value.text() or "" for key, value in declared.get("driver_opts").members()}
    driver = declared.get("driver").text() or "local"
    return bind_mount(replace(mount, volume_type=driver), options)


def _ports(node: Node) -> Iterator[PortBinding]:
    for item in node.get("ports").items():
        if not isinstance(item.value, dict):
            found = parse_ports(item.text() or "")
            if found is None:
                raise item.error(f"is not a port: {(item.text() or '')[:80]!r}")
            yield from found
            continue
        target = integer(item.get("target")) or 0
        first = (item.get("published").text() or "").split("-")[0]
        host = whole_number(first)
        # Without a host port Docker chooses a random one, so the port is still published.
        yield PortBinding(
            target,
            host or 0,
            item.get("host_ip").text() or "",
            item.get("protocol").text() or "tcp",
        )


def _networks(node: Node, project: Node, network_mode: str | None) -> Iterator[Network]:
    if network_mode:
        return
    names = _network_names(node)
    declared = project.get("networks").mapping()
    for name in names or ["default"]:
        network = declared.get(name).mapping()
        options = {key: each.text() or "" for key, each in as_mapping(network.get("driver_opts")).members()}
        external = network.get("external").value
        # The options of an external network are not in the file. Whether it is encrypted is then unknown, and not
        # "no".
        known = network.value is not None and not external
        yield Network(
            name,
            network.get("driver").text() or "",
            is_encrypted(options) if known else None,
            default=not names and network.value is None,
        )


def _devices(node: Node) -> Iterator[str]:
    for item in node.get("devices").items():
        yield (item.get("source").text() if isinstance(item.value, dict) else item.text()) or ""
    yield from node.get("device_cgroup_rules").texts()
    gpus = node.get("gpus")
    requested = [gpus] if isinstance(gpus.value, str) else gpus.items()
    requested += node.at("deploy", "resources", "reservations", "devices").items()
    for item in requested:
        if isinstance(item.value, str):
            yield f"{GPU}: {item.value}"
        else:
            names = (item.get("driver").text(), *item.get("capabilities").texts(), item.get("count").text())
            kind = GPU if "gpu" in names or (item.value is not None and "capabilities" not in item.value) else REQUESTED
            yield f"{kind}: {' '.join(filter(None, names))}"


def _environment(node: Node, files: Files, variables: Mapping[str, str]) -> Iterator[Variable]:
    for item in _env_files(node.get("env_file")):
        required = boolean(item.get("required")) if isinstance(item.value, dict) else None
        name = (item.get("path").text() if isinstance(item.value, dict) else item.text()) or ""
        try:
            text = files.read(name, node.document.file)
        except UsageError as error:
            if required is False:
                continue
            raise item.error(f"cannot be read: {error}") from None
        yield from (Variable(key, value, "file") for key, value in env_file(text, variables).items())
    for place in (node, *(hook for _, hook in _hooks(node))):
        yield from _literal_variables(place.get("environment"))


def _literal_variables(node: Node) -> Iterator[Variable]:
    for key, value in as_mapping(node).members():
        # A name without a value takes the variable of the host that starts it. The file cannot show whether it is a
        # secret.
        yield Variable(key, value.text() or "", "literal" if value.value is not None else "host")


def _env_files(node: Node) -> list[Node]:
    return node.items() if isinstance(node.value, list | None) else [node]


def _read_logging(node: Node) -> Logging | None:
    if node.mapping().value is None:
        return None
    options = tuple((key, value.text() or "") for key, value in node.get("options").members())
    return Logging(node.get("driver").text() or "", options)


def _update(node: Node) -> UpdateStrategy | None:
    if node.mapping().value is None:
        return None
    return UpdateStrategy(
        type="rolling",
        parallelism=node.get("parallelism").text() or "",
        order=node.get("order").text() or "",
        failure_action=node.get("failure_action").text() or "",
        delay=_time(node.get("delay")),
        monitor=_time(node.get("monitor")),
    )
