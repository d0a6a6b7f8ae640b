"""Containers, services and networks in the format of Docker's Engine API.

https://docs.docker.com/reference/api/engine/version/v1.47/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scanner.model.workload import (
    GPU,
    REQUESTED,
    Logging,
    Mount,
    Network,
    PortBinding,
    SelinuxOptions,
    UpdateStrategy,
    Variable,
    Workload,
)
from scanner.patterns import lazy
from scanner.workloads._docker_options import (
    bind_mount,
    capabilities,
    is_encrypted,
    os_of_constraints,
    security_options,
    selinux_of,
    short_mount,
)
from scanner.workloads._documents import Document
from scanner.workloads._quantities import whole_number
from scanner.workloads.base import Node, NodeOrigin

# Docker names a volume without a name with 64 random digits.
_ANONYMOUS = lazy(r"[0-9a-f]{64}")
_UNMASKED = "systempaths=unconfined"
_MOST_JOINED = 20  # containers that join each other's namespaces in a row
_CONTAINER_PATHS: Mapping[str, tuple[str, ...]] = {
    "image": ("Config/Image", "Image"),
    "user": ("Config/User", "Config"),
    "groups": ("HostConfig/GroupAdd",),
    "read_only_root": ("HostConfig/ReadonlyRootfs", "HostConfig"),
    "privileged": ("HostConfig/Privileged",),
    "allow_privilege_escalation": ("HostConfig/SecurityOpt", "HostConfig"),
    "cap_add": ("HostConfig/CapAdd",),
    "cap_drop": ("HostConfig/CapDrop", "HostConfig"),
    "security_opt": ("HostConfig/SecurityOpt", "HostConfig"),
    "seccomp": ("HostConfig/SecurityOpt", "HostConfig"),
    "apparmor": ("AppArmorProfile", "HostConfig/SecurityOpt", "HostConfig"),
    "selinux": ("HostConfig/SecurityOpt", "HostConfig"),
    "network_mode": ("HostConfig/NetworkMode",),
    "networks": ("NetworkSettings/Networks", "NetworkSettings"),
    "pid_mode": ("HostConfig/PidMode",),
    "ipc_mode": ("HostConfig/IpcMode",),
    "uts_mode": ("HostConfig/UTSMode",),
    "userns_mode": ("HostConfig/UsernsMode",),
    "cgroup_parent": ("HostConfig/CgroupParent",),
    "cgroup_mode": ("HostConfig/CgroupnsMode",),
    "sysctls": ("HostConfig/Sysctls",),
    "ulimits": ("HostConfig/Ulimits",),
    "memory": ("HostConfig/Memory", "HostConfig"),
    "memory_reservation": ("HostConfig/MemoryReservation", "HostConfig"),
    "cpus": ("HostConfig/NanoCpus", "HostConfig/CpuQuota", "HostConfig"),
    "cpu_shares": ("HostConfig/CpuShares", "HostConfig"),
    "pids_limit": ("HostConfig/PidsLimit", "HostConfig"),
    "restart": ("HostConfig/RestartPolicy", "HostConfig"),
    "mounts": ("Mounts", "HostConfig"),
    "ports": ("HostConfig/PortBindings", "NetworkSettings/Ports"),
    "publish_all_ports": ("HostConfig/PublishAllPorts",),
    "devices": ("HostConfig/Devices", "HostConfig/DeviceRequests"),
    "environment": ("Config/Env",),
    "command": ("Config/Entrypoint",),
    "arguments": ("Config/Cmd",),
    "healthcheck": ("Config/Healthcheck", "Config"),
    "logging": ("HostConfig/LogConfig", "HostConfig"),
    "labels": ("Config/Labels",),
}
_SERVICE_PATHS: Mapping[str, tuple[str, ...]] = {
    "image": ("container:Image",),
    "user": ("container:User", "container:"),
    "groups": ("container:Groups",),
    "read_only_root": ("container:ReadOnly", "container:"),
    "allow_privilege_escalation": ("container:Privileges", "container:"),
    "cap_add": ("container:CapabilityAdd",),
    "cap_drop": ("container:CapabilityDrop", "container:"),
    "seccomp": ("container:Privileges/Seccomp",),
    "apparmor": ("container:Privileges/AppArmor",),
    "selinux": ("container:Privileges/SELinuxContext", "container:Privileges"),
    "sysctls": ("container:Sysctls",),
    "ulimits": ("container:Ulimits",),
    "mounts": ("container:Mounts", "container:"),
    "environment": ("container:Env",),
    "command": ("container:Command",),
    "arguments": ("container:Args",),
    "healthcheck": ("container:Healthcheck", "container:"),
    "memory": ("task:Resources/Limits/MemoryBytes", "task:Resources", "task:"),
    "memory_reservation": ("task:Resources/Reservations", "task:Resources", "task:"),
    "cpus": ("task:Resources/Limits/NanoCPUs", "task:Resources", "task:"),
    "cpu_reservation": ("task:Resources/Reservations", "task:Resources", "task:"),
    "pids_limit": ("task:Resources/Limits/Pids", "task:Resources", "task:"),
    "restart": ("task:RestartPolicy", "task:"),
    "logging": ("task:LogDriver", "task:"),
    "networks": ("task:Networks", "Spec/Networks"),
    "network_mode": ("task:Networks", "Spec/Networks"),
    "ports": ("Spec/EndpointSpec/Ports", "Spec/EndpointSpec"),
    "replicas": ("Spec/Mode",),
    "update": ("Spec/UpdateConfig", "Spec"),
    "rollback": ("Spec/RollbackConfig", "Spec"),
}


def objects(document: Document) -> list[Node]:
    """Return the items of a list, or the document itself."""
    node = Node(document)
    return node.items() if isinstance(document.value, list) else [node]


def is_container(value: Any) -> bool:
    """Return whether this is an object of ``docker inspect CONTAINER``."""
    return (
        isinstance(value, dict) and isinstance(value.get("HostConfig"), dict) and isinstance(value.get("Config"), dict)
    )


def is_service(value: Any) -> bool:
    """Return whether this is an object of ``docker service inspect``."""
    spec = value.get("Spec") if isinstance(value, dict) else None
    return isinstance(spec, dict) and isinstance(spec.get("TaskTemplate"), dict)


def is_network(value: Any) -> bool:
    """Return whether this is an object of ``docker network inspect``."""
    return isinstance(value, dict) and "IPAM" in value and isinstance(value.get("Driver"), str)


def is_volume(value: Any) -> bool:
    """Return whether this is an object of ``docker volume inspect``."""
    return isinstance(value, dict) and "Mountpoint" in value and isinstance(value.get("Driver"), str)


def volume_options(nodes: Iterator[Node]) -> dict[str, Mapping[str, str]]:
    """Return the driver options of volumes, by name."""
    return {node.get("Name").text() or "": _options(node.get("Options")) for node in nodes}


def _options(node: Node) -> dict[str, str]:
    return {key: value.text() or "" for key, value in node.members()}


def networks_by_id(nodes: Iterator[Node]) -> dict[str, Network]:
    """Return networks by id and by name."""
    found: dict[str, Network] = {}
    for node in nodes:
        name, driver = node.get("Name").text() or "", node.get("Driver").text() or ""
        options = {key: value.text() or "" for key, value in node.get("Options").members()}
        network = Network(name, driver, is_encrypted(options) if driver == "overlay" else None)
        # Containers name networks by id, services also by name.
        found[node.get("Id").text() or name] = found[name] = network
    return found


def container(
    node: Node,
    networks: Mapping[str, Network],
    volumes: Mapping[str, Mapping[str, str]],
    *,
    digest: str = "",
    processes: tuple[str, ...] | None = None,
) -> Workload:
    """Return the workload of a container.

    ``networks``: the known ones, by id and name. ``volumes``: driver options of the known ones, by name. Raises
    UsageError.
    """
    config, host = node.get("Config").mapping(), node.get("HostConfig").mapping()
    image = config.get("Image").string() or node.get("Image").string()
    if not image:
        raise config.error("has no Image")
    name = (node.get("Name").text() or node.get("Id").text() or "").lstrip("/")
    options = host.get("SecurityOpt").texts()
    if host.get("MaskedPaths").value == []:  # how the API reports --security-opt systempaths=unconfined
        options = (*options, _UNMASKED)
    security = security_options(options)
    test = config.get("Healthcheck").mapping().get("Test").texts()
    healthcheck = (test[0] != "NONE") if test else None
    logging = host.get("LogConfig").mapping()
    labels = tuple((key, value.text() or "") for key, value in config.get("Labels").members())
    mode = host.get("NetworkMode").string() or ""
    apparmor = node.get("AppArmorProfile").text() or None
    return Workload(
        name=name,
        image=image,
        source="docker",
        pointer=node.pointer,
        kind="container",
        unit=dict(labels).get("com.docker.compose.service", name),
        namespace=dict(labels).get("com.docker.compose.project", ""),
        container=name,
        labels=labels,
        user=config.get("User").string() or None,
        groups=host.get("GroupAdd").texts(),
        read_only_root=host.get("ReadonlyRootfs").boolean(),
        privileged=host.get("Privileged").boolean(),
        allow_privilege_escalation=security.allow_privilege_escalation,
        cap_add=capabilities(host.get("CapAdd").texts()),
        cap_drop=capabilities(host.get("CapDrop").texts()),
        security_opt=options,
        seccomp=security.seccomp,
        apparmor=security.apparmor or ("Unconfined" if apparmor == "unconfined" else apparmor),
        selinux=selinux_of(options),
        network_mode=None if mode in ("", "default") else mode,
        pid_mode=host.get("PidMode").string() or None,
        ipc_mode=host.get("IpcMode").string() or None,
        uts_mode=host.get("UTSMode").string() or None,
        userns_mode=host.get("UsernsMode").string() or None,
        cgroup_parent=host.get("CgroupParent").string() or None,
        cgroup_mode=host.get("CgroupnsMode").string() or None,
        os="windows" if (node.get("Platform").text() or "").lower() == "windows" else "",
        sysctls=tuple((key, value.text() or "") for key, value in host.get("Sysctls").members()),
        ulimits=tuple(each.get("Name").text() or "" for each in host.get("Ulimits").items()),
        memory=host.get("Memory").integer(),
        memory_reservation=host.get("MemoryReservation").integer() or None,
        cpus=_cpus(host),
        cpu_shares=host.get("CpuShares").integer(),
        # 0 and -1 both mean no limit.
        pids_limit=max(0, host.get("PidsLimit").integer() or 0),
        restart=host.at("RestartPolicy", "Name").text() or "no",
        restart_max_retries=host.at("RestartPolicy", "MaximumRetryCount").integer(),
        mounts=tuple(_mounts(node, host, volumes)),
        ports=tuple(_bindings(host, node)),
        publish_all_ports=host.get("PublishAllPorts").boolean(),
        networks=tuple(_networks(node, mode, networks)),
        devices=tuple(_devices(host)),
        environment=tuple(_variables(config.get("Env"))),
        command=config.get("Entrypoint").texts() or None,
        arguments=config.get("Cmd").texts() or None,
        healthcheck=healthcheck,
        healthcheck_test=test,
        logging=Logging(logging.get("Type").text() or "", _texts(logging.get("Config"))) if logging.value else None,
        running_digest=digest,
        started_at=node.at("State", "StartedAt").text() or "",
        processes=processes,
        origin=NodeOrigin(node, _CONTAINER_PATHS, {}),
    )


def with_joined_namespaces(found: Sequence[tuple[Node, Workload]]) -> Iterator[Workload]:
    """Yield the workloads. One that joins a namespace of a container that uses the host's, uses the host's as well."""
    by_name: dict[str, Workload] = {}
    for node, workload in found:
        if workload.engine is None:
            by_name[workload.container] = by_name[node.get("Id").text() or workload.container] = workload
    for _, workload in found:
        yield replace(
            workload,
            network_mode=_host_of(workload, "network_mode", by_name),
            pid_mode=_host_of(workload, "pid_mode", by_name),
            ipc_mode=_host_of(workload, "ipc_mode", by_name),
        )


def _host_of(workload: Workload, name: str, by_name: Mapping[str, Workload]) -> str | None:
    """Return the mode of a namespace: ``host`` also if the container that it is joined with uses the host's."""
    own: str | None = getattr(workload, name)
    mode = own
    # A saved file may join containers in a circle.
    for _ in range(_MOST_JOINED):
        if mode is None or not mode.startswith("container:"):
            break
        other = by_name.get(mode.removeprefix("container:"))
        mode = getattr(other, name) if other is not None else None
    return "host" if mode == "host" else own


def _texts(node: Node) -> tuple[tuple[str, str], ...]:
    return tuple((key, value.text() or "") for key, value in node.members())


def _cpus(host: Node) -> float | None:
    nano, quota = host.get("NanoCpus").integer() or 0, host.get("CpuQuota").integer() or 0
    if nano:
        return nano / 1e9
    # The kernel's default period is 100 ms.
    return quota / (host.get("CpuPeriod").integer() or 100_000) if quota > 0 else 0.0


def _mounts(node: Node, host: Node, volumes: Mapping[str, Mapping[str, str]]) -> Iterator[Mount]:
    asked = {each.get("Target").text() or "": each for each in host.get("Mounts").items()}
    for each in node.get("Mounts").items():
        request = asked.get(each.get("Destination").text() or "")
        if each.get("Type").text() == "image":
            source = (request.get("Source").text() if request else None) or each.get("Source").text() or ""
            yield Mount("image", each.get("Destination").text() or "", source, True, volume_type="image")
            continue
        name = each.get("Name").text() or ""
        source = (each.get("Source").text() or "") if each.get("Type").text() == "bind" else name
        # Docker names an anonymous volume with 64 random digits. That is no name that a user chose, and checks treat
        # it as none.
        anonymous = each.get("Type").text() == "volume" and bool(_ANONYMOUS.fullmatch(name))
        found = Mount(
            each.get("Type").text() or "volume",
            each.get("Destination").text() or "",
            "" if anonymous else source,
            each.get("RW").boolean() is False,
            each.get("Propagation").text() or "",
            each.get("Driver").text() or "",
        )
        yield found if found.kind != "volume" else bind_mount(found, volumes.get(name) or _driver_options(request))
    yield from _requested_mounts(node, host, volumes)
    for target, options in _texts(host.get("Tmpfs")):
        size = re.search(r"size=(\d+)(?:,|$)", options)
        yield Mount("tmpfs", target, size=whole_number(size[1]) if size else None)


def _requested_mounts(node: Node, host: Node, volumes: Mapping[str, Mapping[str, str]]) -> Iterator[Mount]:
    """Yield the mounts that ``HostConfig`` asks for and ``Mounts`` does not list: the container is not created yet.

    ``Mounts`` is the engine's answer. A request to create a container has only its ``HostConfig``.
    """
    made = {each.get("Destination").text() for each in node.get("Mounts").items()}
    for text in host.get("Binds").texts():
        found = short_mount(text)
        if found.target not in made:
            yield found if found.kind != "volume" else bind_mount(found, volumes.get(found.source, {}))
    for each in host.get("Mounts").items():
        if each.get("Target").text() not in made:
            yield _request(each)
    # Once the container is created, ``Mounts`` has these volumes by their own names.
    if not made:
        for text in host.get("VolumesFrom").texts():
            yield Mount("volume", "*", text, text.endswith(":ro"), volume_type="volumes_from")


def _request(node: Node) -> Mount:
    """Return a mount in the form in which it is requested, of a container or a service."""
    found = Mount(
        node.get("Type").text() or "volume",
        node.get("Target").text() or "",
        node.get("Source").text() or "",
        bool(node.get("ReadOnly").boolean()),
        node.at("BindOptions", "Propagation").text() or "",
        node.at("VolumeOptions", "DriverConfig", "Name").text() or "",
        node.at("TmpfsOptions", "SizeBytes").integer(),
    )
    return found if found.kind != "volume" else bind_mount(found, _driver_options(node))


def _driver_options(request: Node | None) -> Mapping[str, str]:
    """The driver options that a mount was requested with."""
    return _options(request.at("VolumeOptions", "DriverConfig", "Options")) if request else {}


def _bindings(host: Node, node: Node) -> Iterator[PortBinding]:
    # What was asked for is preferred: a stopped container has no ports in its network settings.
    published = host.get("PortBindings").members() or node.at("NetworkSettings", "Ports").members()
    for key, bindings in published:
        port, _, protocol = key.partition("/")
        for each in bindings.items():
            text = each.get("HostPort").text() or "0"
            first = text.split("-")[0]
            yield PortBinding(
                whole_number(port) or 0,
                whole_number(first) or 0,
                each.get("HostIp").text() or "",
                protocol or "tcp",
            )


def _networks(node: Node, mode: str, known: Mapping[str, Network]) -> Iterator[Network]:
    for name, each in node.at("NetworkSettings", "Networks").members():
        found = known.get(each.get("NetworkID").text() or "") or known.get(name)
        default = name == "bridge" and mode in ("", "default", "bridge")
        yield Network(name, found.driver if found else "", found.encrypted if found else None, default)


def _devices(host: Node) -> Iterator[str]:
    for each in host.get("Devices").items():
        yield each.get("PathOnHost").text() or ""
    yield from host.get("DeviceCgroupRules").texts()
    for each in host.get("DeviceRequests").items():
        capabilities = [name for group in each.get("Capabilities").items() for name in group.texts()]
        names = (each.get("Driver").text(), *capabilities)
        yield f"{GPU if 'gpu' in names else REQUESTED}: {' '.join(filter(None, names))}"


def _variables(node: Node) -> Iterator[Variable]:
    for text in node.texts():
        name, _, value = text.partition("=")
        yield Variable(name, value)


def service(node: Node, networks: Mapping[str, Network]) -> Workload:
    """Return the workload of a Swarm service. Raises UsageError."""
    spec = node.get("Spec").mapping()
    task = spec.get("TaskTemplate").mapping()
    inner = task.get("ContainerSpec").mapping()
    if inner.value is None:
        raise task.error("has no ContainerSpec: it runs a plugin, not a container")
    privileges = inner.get("Privileges").mapping()
    limits, reserved = task.at("Resources", "Limits").mapping(), task.at("Resources", "Reservations").mapping()
    test = inner.at("Healthcheck", "Test").texts()
    name = spec.get("Name").text() or ""
    logging = task.get("LogDriver").mapping()
    reference = inner.get("Image").string()
    if not reference:
        raise inner.error("has no Image")
    image, _, pinned = reference.partition("@")
    no_new = privileges.get("NoNewPrivileges").boolean()
    joined = tuple(_service_networks(spec, task, networks))
    return Workload(
        name=name,
        image=reference,
        source="swarm",
        pointer=node.pointer,
        kind="service",
        unit=name,
        container=name,
        namespace=dict(_texts(spec.get("Labels"))).get("com.docker.stack.namespace", ""),
        labels=_texts(spec.get("Labels")),
        user=inner.get("User").string(),
        groups=inner.get("Groups").texts(),
        read_only_root=inner.get("ReadOnly").boolean(),
        allow_privilege_escalation=None if no_new is None else not no_new,
        cap_add=capabilities(inner.get("CapabilityAdd").texts()),
        cap_drop=capabilities(inner.get("CapabilityDrop").texts()),
        seccomp=_confinement(privileges.get("Seccomp")),
        apparmor=_confinement(privileges.get("AppArmor")),
        selinux=_selinux(privileges.get("SELinuxContext")),
        network_mode="host" if any("host" in (each.name, each.driver) for each in joined) else None,
        os=_service_os(task.get("Placement").mapping()),
        sysctls=_texts(inner.get("Sysctls")),
        ulimits=tuple(each.get("Name").text() or "" for each in inner.get("Ulimits").items()),
        memory=limits.get("MemoryBytes").integer(),
        memory_reservation=reserved.get("MemoryBytes").integer(),
        cpus=_nano(limits.get("NanoCPUs")),
        cpu_reservation=_nano(reserved.get("NanoCPUs")),
        pids_limit=limits.get("Pids").integer(),
        restart=task.at("RestartPolicy", "Condition").text(),
        restart_max_retries=task.at("RestartPolicy", "MaxAttempts").integer(),
        mounts=tuple(_service_mounts(inner)),
        ports=tuple(_service_ports(spec)),
        networks=tuple(each for each in joined if "host" not in (each.name, each.driver)),
        environment=tuple(_variables(inner.get("Env"))),
        command=inner.get("Command").texts() or None,
        arguments=inner.get("Args").texts() or None,
        healthcheck=(test[0] != "NONE") if test else None,
        healthcheck_test=test,
        logging=Logging(logging.get("Name").text() or "", _texts(logging.get("Options"))) if logging.value else None,
        replicas=spec.at("Mode", "Replicated", "Replicas").integer(),
        update=_strategy(spec.get("UpdateConfig")),
        rollback=_strategy(spec.get("RollbackConfig")),
        # Swarm resolves the tag when the service is updated, and every task runs that digest.
        running_digest=f"{image.rpartition(':')[0] or image}@{pinned}" if pinned else "",
        origin=NodeOrigin(node, _SERVICE_PATHS, {"task": task, "container": inner}),
    )


def _service_os(placement: Node) -> str:
    # The client notes the platforms of the image, and Swarm places tasks on those alone.
    platforms = {(each.get("OS").text() or "").lower() for each in placement.get("Platforms").items()}
    return "windows" if platforms == {"windows"} else os_of_constraints(placement.get("Constraints").texts())


def _confinement(node: Node) -> str | None:
    mode = node.mapping().get("Mode").text()
    return {"unconfined": "Unconfined", "disabled": "Unconfined", "default": "RuntimeDefault"}.get(mode or "", mode)


def _selinux(node: Node) -> SelinuxOptions | None:
    if node.mapping().get("Disable").boolean():
        return SelinuxOptions(type="disabled")  # as `selinux_of` returns it for label=disable
    found = {key.lower(): node.get(key).text() or "" for key in ("User", "Role", "Type", "Level")}
    return SelinuxOptions(**found) if any(found.values()) else None


def _nano(node: Node) -> float | None:
    value = node.integer()
    return value / 1e9 if value is not None else None


def _service_mounts(inner: Node) -> Iterator[Mount]:
    for each in inner.get("Mounts").items():
        yield _request(each)
    for kind, member, name in (("secret", "Secrets", "SecretName"), ("config", "Configs", "ConfigName")):
        for each in inner.get(member).items():
            file = each.at("File", "Name").text() or ""
            target = file if file.startswith("/") else f"/run/secrets/{file}" if kind == "secret" else f"/{file}"
            yield Mount(kind, target, each.get(name).text() or "", True)


def _service_ports(spec: Node) -> Iterator[PortBinding]:
    for each in spec.at("EndpointSpec", "Ports").items():
        published = each.get("PublishedPort").integer() or 0
        yield PortBinding(each.get("TargetPort").integer() or 0, published, "", each.get("Protocol").text() or "tcp")


def _service_networks(spec: Node, task: Node, known: Mapping[str, Network]) -> Iterator[Network]:
    for each in [*task.get("Networks").items(), *spec.get("Networks").items()]:
        target = each.get("Target").text() or ""
        # The id alone, if the file has no network: the check that needs the driver then says that it is not known.
        yield known.get(target) or Network(target)


def _strategy(node: Node) -> UpdateStrategy | None:
    if node.mapping().value is None:
        return None
    delay, monitor = node.get("Delay").number(), node.get("Monitor").number()
    return UpdateStrategy(
        type="rolling",
        parallelism=node.get("Parallelism").text() or "",
        order=node.get("Order").text() or "",
        failure_action=node.get("FailureAction").text() or "",
        delay=delay / 1e9 if delay is not None else None,
        monitor=monitor / 1e9 if monitor is not None else None,
    )
