"""Marathon: apps and groups in the JSON of its REST API.

https://mesosphere.github.io/marathon/docs/application-basics.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from scanner.model.workload import GPU, Logging, Mount, Network, PortBinding, Probe, UpdateStrategy, Variable, Workload
from scanner.workloads._docker_options import (
    capabilities,
    long_mount,
    parse_ports,
    security_options,
    selinux_of,
    short_mount,
)
from scanner.workloads._documents import Document
from scanner.workloads._quantities import capped_number, ram, whole_number
from scanner.workloads.base import Files, Node, NodeOrigin, WorkloadSource

_MIB = 1 << 20
_DEPTH = 30
_PARAMETERS = ("container/docker/parameters", "container/docker", "container")
_PATHS: Mapping[str, tuple[str, ...]] = {
    "image": ("container/docker/image",),
    "privileged": ("container/docker/privileged", *_PARAMETERS),
    "memory": ("mem",),
    "cpus": ("cpus",),
    "replicas": ("instances",),
    "update": ("upgradeStrategy",),
    "healthcheck": ("healthChecks",),
    "healthChecks": ("healthChecks",),
    "environment": ("env", "secrets"),
    "mounts": ("container/volumes", "container"),
    "ports": ("container/portMappings", "container/docker/portMappings", "portDefinitions"),
    "network_mode": ("networks", "container/docker/network"),
    "networks": ("networks", "container/docker/network"),
    "arguments": ("args", "cmd"),
    "image_pull_policy": ("container/docker/forcePullImage",),
    "labels": ("labels",),
    "user": ("user", *_PARAMETERS),
    **dict.fromkeys(
        (
            "read_only_root",
            "allow_privilege_escalation",
            "groups",
            "security_opt",
            "seccomp",
            "apparmor",
            "selinux",
            "cap_add",
            "cap_drop",
            "pid_mode",
            "ipc_mode",
            "uts_mode",
            "userns_mode",
            "cgroup_parent",
            "cgroup_mode",
            "sysctls",
            "ulimits",
            "pids_limit",
            "restart",
            "devices",
            "logging",
            "cpu_shares",
            "memory_reservation",
            "command",
            "rollback",
        ),
        _PARAMETERS,
    ),
}

# Names of the attributes by which administrators tell agents with Windows, and operators that ask for one value.
_OS_ATTRIBUTES = frozenset(("os", "ostype", "platform"))
_NETWORK_KINDS = ("container", "container/bridge", "host")
_EQUAL = frozenset(("IS", "LIKE", "CLUSTER"))
_WINDOWS = re.compile(r"windows[\w .*+-]*", re.IGNORECASE)  # LIKE takes a regular expression; "windows|linux" is both

_SAID_BY: Mapping[str, tuple[str, ...]] = {
    "user": ("user",),
    "u": ("user",),
    "read-only": ("read_only_root",),
    "privileged": ("privileged",),
    "cap-add": ("cap_add",),
    "cap-drop": ("cap_drop",),
    "security-opt=seccomp": ("seccomp",),
    "security-opt=apparmor": ("apparmor",),
    "security-opt=label": ("selinux",),
    "security-opt=no-new-privileges": ("allow_privilege_escalation",),
    "pid": ("pid_mode",),
    "ipc": ("ipc_mode",),
    "uts": ("uts_mode",),
    "userns": ("userns_mode",),
    "cgroup-parent": ("cgroup_parent",),
    "cgroupns": ("cgroup_mode",),
    "pids-limit": ("pids_limit",),
    "restart": ("restart",),
    "log-driver": ("logging",),
    "cpu-shares": ("cpu_shares",),
    "c": ("cpu_shares",),
    "memory-reservation": ("memory_reservation",),
    "entrypoint": ("command",),
}


class MarathonApps(WorkloadSource):
    """See ``WorkloadSource``. ``docker.parameters`` are options of ``docker run`` and are read as such."""

    id = "marathon"
    title = "Marathon (apps and groups as JSON)"
    targets = (
        (
            "marathon:FILE",
            "apps and groups, as JSON",
        ),
    )

    def recognises(self, document: Document) -> bool:
        """See ``WorkloadSource.recognises``."""
        value = document.value
        # The first hundred are enough to know the kind; the list may be as long as the file allows.
        values = value if isinstance(value, list) else [value]
        return any(_is_app(each) or _is_group(each) or _is_answer(each) for each in values[:100])

    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """See ``WorkloadSource.read``.

        Apps without a container (plain commands) are skipped, because they have no image.
        """
        found: list[Workload] = []
        for document in documents:
            node = Node(document)
            for item in node.items() if isinstance(document.value, list) else [node]:
                found.extend(_workloads(item, "", 0))
        return tuple(found)


def _is_app(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str) and ("container" in value or "cmd" in value)


def _is_group(value: object) -> bool:
    return isinstance(value, dict) and (isinstance(value.get("apps"), list) or isinstance(value.get("groups"), list))


def _is_answer(value: object) -> bool:
    """Return whether this is the answer to ``GET /v2/apps/ID``."""
    return isinstance(value, dict) and value.keys() == {"app"} and _is_app(value["app"])


def _workloads(node: Node, parent: str, depth: int) -> Iterator[Workload]:
    if depth > _DEPTH:
        raise node.error("is nested too deeply")
    if _is_answer(node.value):
        node = node.get("app")
    if _is_group(node.value):
        name = _join_path(parent, node.get("id").text() or "")
        if node.get("container").value is not None:
            raise node.get("container").error("stands beside apps or groups: write the app as one of apps")
        # Skipping pods would show a group as clean although part of it was not looked at.
        if node.get("pods").items():
            raise node.get("pods").error("is not supported: only apps are read, remove the pods")
        for child in [*node.get("apps").items(), *node.get("groups").items()]:
            yield from _workloads(child, name, depth + 1)
    elif _is_app(node.value):
        container = node.get("container").mapping()
        # The Mesos containerizer without a Docker image runs a command of the host.
        if container.get("docker").value is not None:
            yield _app(node, parent)
        elif container.get("type").string() == "DOCKER":
            raise container.error("has the type DOCKER and no docker: its image is missing")
        elif not node.get("cmd").value and not node.get("args").value:
            raise node.error("has neither cmd nor args nor container.docker: it runs nothing")
    else:
        raise node.error("is neither a Marathon app (id with container or cmd) nor a group (apps, groups)")


def _join_path(parent: str, name: str) -> str:
    return name if name.startswith("/") else f"{parent.rstrip('/')}/{name}"


def _app(node: Node, parent: str) -> Workload:
    container = node.get("container").mapping()
    docker = container.get("docker").mapping()
    image = docker.get("image").string()
    if not image:
        raise docker.error("has no image")
    name = _join_path(parent, node.get("id").text() or "")
    options = _parameters(docker)
    security_opt = options.get("security-opt", ())
    security = security_options(security_opt)
    networks, mode = _networks(node, docker, options)
    test = _last(options, "health-cmd") or _command_of(node.get("healthChecks").items())
    memory = node.get("mem").number()
    return Workload(
        name=name,
        image=image,
        source="marathon",
        pointer=node.pointer,
        kind="app",
        namespace=name.rpartition("/")[0],
        unit=name,
        container=name.rpartition("/")[2],
        labels=tuple((key, value.text() or "") for key, value in node.get("labels").members()),
        user=_last(options, "user", "u") or node.get("user").text(),
        groups=options.get("group-add", ()),
        read_only_root=_flag(options, "read-only"),
        # Both places grant it: the field, and an option that Marathon passes on to Docker unchanged.
        privileged=docker.get("privileged").boolean() or _flag(options, "privileged"),
        allow_privilege_escalation=security.allow_privilege_escalation,
        cap_add=capabilities(options.get("cap-add", ())),
        cap_drop=capabilities(options.get("cap-drop", ())),
        security_opt=security_opt,
        # The universal container runtime has its own settings: container.linuxInfo.
        seccomp="Unconfined"
        if container.at("linuxInfo", "seccomp", "unconfined").boolean()
        else security.seccomp or container.at("linuxInfo", "seccomp", "profileName").text(),
        apparmor=security.apparmor,
        selinux=selinux_of(security_opt),
        network_mode=mode,
        pid_mode=_last(options, "pid"),
        ipc_mode="host"
        if container.at("linuxInfo", "ipcInfo", "mode").text() == "SHARE_PARENT"
        else _last(options, "ipc"),
        uts_mode=_last(options, "uts"),
        userns_mode=_last(options, "userns"),
        cgroup_parent=_last(options, "cgroup-parent"),
        cgroup_mode=_last(options, "cgroupns"),
        os=_os(node),
        sysctls=tuple((k, v) for k, _, v in (each.partition("=") for each in options.get("sysctl", ()))),
        ulimits=tuple(each.partition("=")[0] for each in options.get("ulimit", ())),
        # Marathon always sets a memory limit; its default is 128 MiB.
        memory=capped_number((128 if memory is None else memory) * _MIB),
        # Marathon's default is 1.
        cpus=node.get("cpus").number() or 1.0,
        cpu_shares=_whole_number(_last(options, "cpu-shares", "c")),
        pids_limit=_whole_number(_last(options, "pids-limit")),
        restart=_last(options, "restart"),
        mounts=tuple(_mounts(container, options)),
        ports=tuple(_ports(node, container, docker, mode, options)),
        networks=networks,
        devices=(
            *options.get("device", ()),
            *options.get("device-cgroup-rule", ()),
            *(f"{GPU}: {each}" for each in options.get("gpus", ())),
            *((f"{GPU}: {node.get('gpus').text()}",) if node.get("gpus").number() else ()),
        ),
        environment=tuple(_variables(node, options)),
        command=tuple(filter(None, (_last(options, "entrypoint"),))) or None,
        arguments=node.get("args").texts() or tuple(filter(None, (node.get("cmd").text(),))) or None,
        healthcheck=True
        if node.get("healthChecks").items() or test
        else False
        if "no-healthcheck" in options
        else None,
        healthcheck_test=("CMD-SHELL", test) if test else (),
        probes=tuple(_checks_of_several_kinds(node)) if not test else (),
        logging=_read_logging(options),
        replicas=node.get("instances").integer(),
        update=_update(node),
        image_pull_policy="Always" if docker.get("forcePullImage").boolean() else None,
        origin=NodeOrigin(node, {**_PATHS, **_said_by(docker)}, {}),
    )


def _os(node: Node) -> str:
    """Return ``windows`` if the constraints allow agents with Windows alone, else an empty text.

    https://mesosphere.github.io/marathon/docs/constraints.html: a list, or an object in newer versions.
    """
    for each in node.get("constraints").items():
        if isinstance(each.value, list):
            name, operator, value = [*(item.text() or "" for item in each.items()), "", "", ""][:3]
        else:
            name, operator, value = (each.get(key).text() or "" for key in ("fieldName", "operator", "value"))
        if name.lower() in _OS_ATTRIBUTES and operator.upper() in _EQUAL and _WINDOWS.fullmatch(value):
            return "windows"
    return ""


def _command_of(checks: Sequence[Node]) -> str | None:
    """Return the command of the health checks if all of them are commands; it may be one that cannot fail."""
    commands = [each.at("command", "value").text() for each in checks if each.get("protocol").text() == "COMMAND"]
    # With another kind beside it, a command that cannot fail does no harm.
    return commands[0] if commands and len(commands) == len(checks) else None


def _checks_of_several_kinds(node: Node) -> Iterator[Probe]:
    """Yield the commands among health checks of several kinds, which are not the app's one test."""
    for each in node.get("healthChecks").items():
        yield Probe("healthChecks", command=tuple(filter(None, (each.at("command", "value").text(),))))


def _parameters(docker: Node) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in docker.get("parameters").items():
        # Marathon passes ``--key=value`` on; both ways of writing it work.
        key = (each.get("key").text() or "").lstrip("-")
        found[key] = (*found.get(key, ()), each.get("value").text() or "")
    return found


def _said_by(docker: Node) -> dict[str, tuple[str, ...]]:
    """The very parameter that says a field, for those that parameters say; the last one of a name counts."""
    found: dict[str, tuple[str, ...]] = {}
    for number, each in enumerate(docker.get("parameters").items()):
        key, value = (each.get("key").text() or "").lstrip("-"), each.get("value").text() or ""
        name = f"{key}={re.split('[=:]', value, maxsplit=1)[0]}" if key == "security-opt" else key
        for field in _SAID_BY.get(name, ()):
            found[field] = (f"container/docker/parameters/{number}/value", *_PATHS[field])
    return found


def _last(options: Mapping[str, tuple[str, ...]], *names: str) -> str | None:
    # As Docker: of a repeated option the last one counts.
    return next((options[name][-1] for name in names if options.get(name)), None)


def _flag(options: Mapping[str, tuple[str, ...]], name: str) -> bool | None:
    value = _last(options, name)
    return None if value is None else value.lower() not in ("false", "0")


def _whole_number(text: str | None) -> int | None:
    return whole_number(text) if text is not None else None


def _networks(
    node: Node, docker: Node, options: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[Network, ...], str | None]:
    """Return the app's networks and its mode: host, bridge, or None for user-defined networks."""
    own = _last(options, "network", "net")
    modes = [(_network_kind(each.get("mode")), each.get("name").text() or "") for each in node.get("networks").items()]
    old = docker.get("network").string()
    if not modes and old:
        modes = [
            ({"HOST": "host", "BRIDGE": "container/bridge", "USER": "container", "NONE": "none"}.get(old, old), "")
        ]
    mode = own or next(("host" for kind, _ in modes if kind == "host"), None)
    mode = mode or next(("bridge" for kind, _ in modes if kind == "container/bridge"), None)
    if mode is None and not modes:
        # The default is the host's network: https://mesosphere.github.io/marathon/docs/networking.html
        mode = "host"
    return tuple(Network(name) for kind, name in modes if kind == "container" and name), mode


def _network_kind(mode: Node) -> str:
    text = mode.string() or "container"
    if text not in _NETWORK_KINDS:  # Marathon refuses others: ``HOST``
        raise mode.error(f"is {text[:80]!r}: write one of {', '.join(_NETWORK_KINDS)}")
    return text


def _mounts(container: Node, options: Mapping[str, tuple[str, ...]]) -> Iterator[Mount]:
    for each in container.get("volumes").items():
        target, read_only = each.get("containerPath").text() or "", each.get("mode").text() == "RO"
        external = each.get("external").mapping()
        host = each.get("hostPath").text()
        if each.get("persistent").value is not None:
            yield Mount("volume", target, target, read_only, volume_type="persistent")
        elif external.value is not None:
            yield Mount("volume", target, external.get("name").text() or "", read_only, volume_type="external")
        elif each.get("secret").value is not None:
            yield Mount("secret", target, each.get("secret").text() or "", True)
        else:
            # A relative host path is in the task's sandbox, which is no path of the host.
            bind = bool(host) and (host or "").startswith("/")
            yield Mount(
                "bind" if bind else "volume", target, host or "", read_only, volume_type="hostPath" if bind else ""
            )
    for text in (*options.get("volume", ()), *options.get("v", ())):
        yield short_mount(text)
    for text in options.get("volumes-from", ()):
        name, _, mode = text.partition(":")
        yield Mount("volume", "*", name, mode == "ro", volume_type="volumesFrom")
    for text in options.get("mount", ()):
        yield long_mount(text)
    for text in options.get("tmpfs", ()):
        target, _, rest = text.partition(":")
        size = next((ram(each[5:]) for each in rest.split(",") if each.startswith("size=")), None)
        yield Mount("tmpfs", target, size=size)


def _ports(
    node: Node, container: Node, docker: Node, mode: str | None, options: Mapping[str, tuple[str, ...]]
) -> Iterator[PortBinding]:
    for each in [*container.get("portMappings").items(), *docker.get("portMappings").items()]:
        yield PortBinding(
            each.get("containerPort").integer() or 0,
            # In bridge mode a missing host port is a random one, so that the port is published all the same.
            each.get("hostPort").integer() if mode != "bridge" else each.get("hostPort").integer() or 0,
            "",
            each.get("protocol").text() or "tcp",
        )
    if mode == "host":
        for each in node.get("portDefinitions").items():
            port = each.get("port").integer() or 0
            yield PortBinding(port, port, "", each.get("protocol").text() or "tcp")
    for text in (*options.get("publish", ()), *options.get("p", ())):
        found = parse_ports(text)
        if found is None:
            raise docker.get("parameters").error(f"publish is not a port: {text[:80]!r}")
        yield from found


def _variables(node: Node, options: Mapping[str, tuple[str, ...]]) -> Iterator[Variable]:
    for key, value in node.get("env").members():
        if isinstance(value.value, dict):
            # An object refers to an entry of ``secrets``; its value is not in the app.
            yield Variable(key, "", "secret")
        else:
            yield Variable(key, value.text() or "")
    for text in (*options.get("env", ()), *options.get("e", ())):
        key, _, given = text.partition("=")
        yield Variable(key, given)


def _read_logging(options: Mapping[str, tuple[str, ...]]) -> Logging | None:
    driver = _last(options, "log-driver")
    if driver is None and "log-opt" not in options:
        return None
    return Logging(
        driver or "", tuple((k, v) for k, _, v in (each.partition("=") for each in options.get("log-opt", ())))
    )


def _update(node: Node) -> UpdateStrategy | None:
    strategy = node.get("upgradeStrategy").mapping()
    if strategy.value is None:
        return None
    healthy, over = strategy.get("minimumHealthCapacity").number(), strategy.get("maximumOverCapacity").number()
    return UpdateStrategy(
        type="rolling",
        max_unavailable=f"{round((1 - healthy) * 100)}%" if healthy is not None else "",
        max_surge=f"{round(over * 100)}%" if over is not None else "",
    )
