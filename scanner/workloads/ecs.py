"""Amazon ECS: task definitions and services in the JSON of the AWS command line.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from scanner.model.workload import GPU, Logging, Mount, PortBinding, UpdateStrategy, Variable, Workload
from scanner.workloads._docker_options import bind_mount, capabilities, security_options, selinux_of
from scanner.workloads._documents import Document
from scanner.workloads._quantities import capped_number
from scanner.workloads.base import Files, Node, NodeOrigin, WorkloadSource

_MIB = 1 << 20
_LINUX = "linuxParameters"
_MOST_OTHERS = 200  # containers whose volumes one container takes
_PATHS: Mapping[str, tuple[str, ...]] = {
    "image": ("image",),
    "user": ("user",),
    "read_only_root": ("readonlyRootFilesystem",),
    "privileged": ("privileged",),
    "allow_privilege_escalation": ("dockerSecurityOptions",),
    "security_opt": ("dockerSecurityOptions",),
    "seccomp": ("dockerSecurityOptions",),
    "apparmor": ("dockerSecurityOptions",),
    "selinux": ("dockerSecurityOptions",),
    "cap_add": (f"{_LINUX}/capabilities/add",),
    "cap_drop": (f"{_LINUX}/capabilities/drop", f"{_LINUX}/capabilities", _LINUX),
    "devices": (f"{_LINUX}/devices", "resourceRequirements"),
    "memory": ("memory", "task:memory"),
    "memory_reservation": ("memoryReservation", "memory"),
    "cpus": ("cpu", "task:cpu"),
    "cpu_reservation": ("cpu", "task:cpu"),
    "ulimits": ("ulimits",),
    "mounts": ("mountPoints", "volumesFrom"),
    "ports": ("portMappings",),
    "environment": ("environment", "environmentFiles", "secrets"),
    "command": ("entryPoint",),
    "arguments": ("command",),
    "healthcheck": ("healthCheck",),
    "logging": ("logConfiguration",),
    "network_mode": ("task:networkMode",),
    "pid_mode": ("task:pidMode",),
    "ipc_mode": ("task:ipcMode",),
    "sysctls": ("systemControls",),
    "restart": ("restartPolicy",),
    "replicas": ("service:desiredCount", "service:"),
    "update": ("service:deploymentConfiguration", "service:"),
    "rollback": (
        "service:deploymentConfiguration/deploymentCircuitBreaker",
        "service:deploymentConfiguration",
        "service:",
    ),
}


class EcsTasks(WorkloadSource):
    """See ``WorkloadSource``.

    A service in the same documents provides replicas and update strategy of its task definition.
    """

    id = "ecs"
    title = "Amazon ECS (task definitions and services as JSON)"
    targets = (
        (
            "ecs:FILE",
            "task definitions and services, as the AWS command line prints or takes them",
        ),
    )

    def recognises(self, document: Document) -> bool:
        """See ``WorkloadSource.recognises``."""
        return any(_is_task(each.value) or _is_service(each.value) for each in _objects(document))

    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """See ``WorkloadSource.read``."""
        nodes = [node for document in documents for node in _objects(document)]
        for node in nodes:
            if not _is_task(node.value) and not _is_service(node.value):
                raise node.error("is neither a task definition (containerDefinitions) nor a service (taskDefinition)")
        # By family without the revision: a service's file usually names an older revision than the task definition
        # beside it.
        services = {
            _family_name(node.get("taskDefinition").text() or ""): node for node in nodes if _is_service(node.value)
        }
        found = tuple(workload for node in nodes if _is_task(node.value) for workload in _task(node, services))
        tasks = {_family(node) for node in nodes if _is_task(node.value)}
        return (*found, *(_unread(node, family) for family, node in services.items() if family not in tasks))


def _objects(document: Document) -> list[Node]:
    """Return task definitions and services, unwrapped from answers of the AWS command line."""
    node = Node(document)
    items = node.items() if isinstance(document.value, list) else [node]
    found: list[Node] = []
    for item in items:
        value = item.value if isinstance(item.value, dict) else {}
        if value.get("failures"):  # of describe-services, which answers for the others all the same
            raise item.get("failures").error("are not empty: part of what was asked for is missing")
        if isinstance(value.get("taskDefinition"), dict):
            found.append(item.get("taskDefinition"))
        elif isinstance(value.get("services"), list):
            found.extend(item.get("services").items())
        elif isinstance(value.get("service"), dict):
            found.append(item.get("service"))
        else:
            found.append(item)
    return found


def _is_task(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("containerDefinitions"), list)


def _is_service(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("taskDefinition"), str)


def _family_name(name: str) -> str:
    """Return the family of ``family:revision`` or of an ARN."""
    return name.rpartition("/")[2].partition(":")[0]


def _family(task: Node) -> str:
    return task.get("family").text() or _family_name(task.get("taskDefinitionArn").text() or "")


def _unread(service: Node, family: str) -> Workload:
    """Return a service whose task definition was not given: what it runs is not known."""
    name = service.get("serviceName").text() or family
    return Workload(
        name=name,
        image="",
        source="ecs",
        pointer=service.pointer,
        kind="service",
        unit=name,
        unread=f"runs the task definition {family[:200]}, which was not given",
        origin=NodeOrigin(service, _PATHS, {"task": service, "service": service}),
    )


def _task(node: Node, services: Mapping[str, Node]) -> Iterator[Workload]:
    family = _family(node)
    service = services.get(family)
    volumes = {each.get("name").text() or "": each for each in node.get("volumes").items()}
    containers = node.get("containerDefinitions").items()
    if not containers:
        raise node.get("containerDefinitions").error("is empty: a task definition needs a container")
    for each in containers:
        yield _container(each.mapping(), node, family, service, volumes)


def _container(node: Node, task: Node, family: str, service: Node | None, volumes: Mapping[str, Node]) -> Workload:
    linux = node.get(_LINUX).mapping()
    name, image = node.get("name").text() or "", node.get("image").string()
    if not image:
        raise node.error("has no image")
    options = node.get("dockerSecurityOptions").texts()
    security = security_options(options)
    mode = _one_of(task.get("networkMode"), "none", "bridge", "awsvpc", "host", "nat", "default")
    test = node.at("healthCheck", "command").texts()
    logging = node.get("logConfiguration").mapping()
    roots = {"task": task, "service": service if service is not None else task}
    escalation = security.allow_privilege_escalation
    return Workload(
        name=f"{family} · {name}",
        image=image,
        source="ecs",
        pointer=node.pointer,
        kind="task-definition",
        unit=(service.get("serviceName").text() if service is not None else None) or family,
        container=name,
        labels=tuple((key, value.text() or "") for key, value in node.get("dockerLabels").members()),
        user=node.get("user").string(),
        read_only_root=node.get("readonlyRootFilesystem").boolean(),
        privileged=node.get("privileged").boolean(),
        allow_privilege_escalation=escalation,
        cap_add=capabilities(linux.at("capabilities", "add").texts()),
        cap_drop=capabilities(linux.at("capabilities", "drop").texts()),
        security_opt=options,
        seccomp=security.seccomp,
        apparmor=security.apparmor,
        selinux=selinux_of(options),
        network_mode=mode,
        pid_mode=_one_of(task.get("pidMode"), "host", "task"),
        ipc_mode=_one_of(task.get("ipcMode"), "host", "task", "none"),
        os="windows"
        if (task.at("runtimePlatform", "operatingSystemFamily").text() or "").upper().startswith("WINDOWS")
        else "",
        sysctls=tuple(
            (e.get("namespace").text() or "", e.get("value").text() or "") for e in node.get("systemControls").items()
        ),
        ulimits=tuple(each.get("name").text() or "" for each in node.get("ulimits").items()),
        memory=_mebibytes(node.get("memory")) or _mebibytes(task.get("memory")),
        memory_reservation=_mebibytes(node.get("memoryReservation")),
        cpus=_cores(task.get("cpu")),  # a container's ``cpu`` is a share and no limit
        cpu_reservation=_cores(node.get("cpu")),
        restart="always" if node.at("restartPolicy", "enabled").boolean() else None,
        mounts=tuple(_mounts(node, task, volumes)),
        ports=tuple(_port(each, mode) for each in node.get("portMappings").items()),
        devices=(
            *(each.get("hostPath").text() or "" for each in linux.get("devices").items()),
            *(
                f"{GPU}: {each.get('value').text() or ''}"
                for each in node.get("resourceRequirements").items()
                if each.get("type").text() == "GPU"
            ),
        ),
        environment=tuple(_variables(node)),
        command=node.get("entryPoint").texts() or None,
        arguments=node.get("command").texts() or None,
        healthcheck=(test[0] != "NONE") if test else None,
        healthcheck_test=test,
        logging=_read_logging(logging) if logging.value else None,
        replicas=service.get("desiredCount").integer() if service is not None else None,
        update=_update(service) if service is not None else None,
        rollback=_rollback(service) if service is not None else None,
        origin=NodeOrigin(node, _PATHS, roots),
    )


def _one_of(node: Node, *known: str) -> str | None:
    """Return one of the values of an enumeration. Raises UsageError for others, which ECS refuses as well: ``HOST``."""
    text = node.string()
    if text is not None and text not in known:
        raise node.error(f"is {text[:80]!r}: write one of {', '.join(known)}")
    return text


def _mebibytes(node: Node) -> int | None:
    """Parse a size in MiB, or with a unit (``0.5 GB``), to bytes."""
    text = node.text()
    if not text:
        return None
    amount, _, unit = text.strip().upper().partition(" ")
    amount, unit = (amount.removesuffix("GB"), "GB") if amount.endswith("GB") else (amount, unit)
    try:
        return capped_number(float(amount) * (_MIB * 1024 if unit == "GB" else _MIB))
    except (ValueError, OverflowError):
        raise node.error(f"is not a size: {text[:80]!r}") from None


def _cores(node: Node) -> float | None:
    """Parse CPU units (1,024 per core) or ``.5 vCPU`` to cores. None: 0, which means no limit."""
    text = node.text()
    if not text:
        return None
    lowered = text.strip().lower()
    try:
        amount = float(lowered.removesuffix("vcpu").strip())
        if not 0 <= amount < 1 << 31:  # false for NaN as well
            raise ValueError
    except ValueError:
        raise node.error(f"is not a number of CPU units: {text[:80]!r}") from None
    return (amount if lowered.endswith("vcpu") else amount / 1024) or None


def _mounts(node: Node, task: Node, volumes: Mapping[str, Node]) -> Iterator[Mount]:
    yield from _own_mounts(node, volumes)
    yield from _mounts_of_others(node, task, volumes)
    for each in node.at(_LINUX, "tmpfs").items():
        size = each.get("size").integer()
        yield Mount("tmpfs", each.get("containerPath").text() or "", size=size * _MIB if size else None)


def _own_mounts(node: Node, volumes: Mapping[str, Node]) -> Iterator[Mount]:
    for each in node.get("mountPoints").items():
        name = each.get("sourceVolume").text() or ""
        read_only = bool(each.get("readOnly").boolean())
        target = each.get("containerPath").text() or ""
        volume = volumes.get(name)
        host = volume.at("host", "sourcePath").text() if volume is not None else None
        if host:
            yield Mount("bind", target, host, read_only, volume_type="host")
            continue
        kinds = [
            key
            for key, value in (volume.members() if volume is not None else ())
            if key not in ("name", "host") and value.value
        ]
        # A volume of scope "task" ends with the task, like an anonymous one. Only a shared one keeps data.
        shared = any(
            kind != "dockerVolumeConfiguration" or volume.at(kind, "scope").text() == "shared"
            for kind in kinds
            if volume is not None
        )
        mount = Mount("volume", target, name if shared else "", read_only, volume_type=kinds[0] if kinds else "task")
        docker = volume.get("dockerVolumeConfiguration") if volume is not None else None
        options = docker.get("driverOpts").members() if docker is not None else ()
        yield bind_mount(mount, {key: value.text() or "" for key, value in options})


def _mounts_of_others(node: Node, task: Node, volumes: Mapping[str, Node]) -> Iterator[Mount]:
    """Yield the volumes of the containers in ``volumesFrom``, of those in theirs, and so on, each container once.

    Ten containers that name each other ten times would otherwise stand for billions of volumes.
    """
    others: dict[str | None, Node] = {}
    for each in task.get("containerDefinitions").items():
        others.setdefault(each.get("name").text(), each)
    waiting = [(each, False) for each in node.get("volumesFrom").items()]
    seen: set[tuple[str, bool]] = set()
    for each, read_only in waiting:  # grows meanwhile
        name = each.get("sourceContainer").text() or ""
        read_only = read_only or bool(each.get("readOnly").boolean())
        if (name, read_only) in seen:
            continue
        seen.add((name, read_only))
        other = others.get(name)
        if other is None or len(seen) > _MOST_OTHERS:
            yield Mount("volume", "*", name, read_only, volume_type="volumesFrom")
            continue
        for mount in _own_mounts(other.mapping(), volumes):
            if mount.kind in ("bind", "volume"):
                yield replace(mount, read_only=mount.read_only or read_only)
        waiting += [(one, read_only) for one in other.get("volumesFrom").items()]


def _port(node: Node, mode: str | None) -> PortBinding:
    container = node.get("containerPort").integer() or 0
    protocol = node.get("protocol").text() or "tcp"
    if mode == "awsvpc":  # the task has its own address, so no host port is used
        return PortBinding(container, None, "", protocol)
    host = node.get("hostPort").integer() or (container if mode == "host" else 0)
    return PortBinding(container, host, "", protocol)


def _variables(node: Node) -> Iterator[Variable]:
    for each in node.get("environment").items():
        yield Variable(each.get("name").text() or "", each.get("value").text() or "")
    for each in node.get("secrets").items():
        yield Variable(each.get("name").text() or "", "", "secret")
    for each in node.get("environmentFiles").items():
        yield Variable("*", each.get("value").text() or "", "file")


def _read_logging(node: Node) -> Logging:
    return Logging(
        node.get("logDriver").text() or "",
        tuple((key, value.text() or "") for key, value in node.get("options").members()),
    )


def _update(service: Node) -> UpdateStrategy:
    configuration = service.get("deploymentConfiguration").mapping()
    breaker = configuration.get("deploymentCircuitBreaker").mapping()
    healthy, most = configuration.get("minimumHealthyPercent").integer(), configuration.get("maximumPercent").integer()
    return UpdateStrategy(
        type=service.at("deploymentController", "type").text() or "ECS",
        failure_action="rollback"
        if breaker.get("rollback").boolean()
        else "pause"
        if breaker.get("enable").boolean()
        else "",
        max_unavailable=f"{100 - healthy}%" if healthy is not None else "",
        max_surge=f"{most - 100}%" if most is not None else "",
    )


def _rollback(service: Node) -> UpdateStrategy | None:
    breaker = service.at("deploymentConfiguration", "deploymentCircuitBreaker")
    return UpdateStrategy(type="circuit-breaker") if breaker.mapping().get("rollback").boolean() else None
