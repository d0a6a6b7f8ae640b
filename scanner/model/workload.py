"""How a container is run: one model for docker inspect, Compose, Swarm, Kubernetes, ECS and Marathon.

``None`` always means that the source does not set the value, so the runtime's default applies. Checks know the default
of each runtime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from functools import cache
from typing import Any, ClassVar

import orjson

from scanner.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """The location of a value. ``document``: from 0 within the file. ``line``, ``column``: from 1."""

    file: str = ""
    document: int = 0
    pointer: str = ""  # JSON pointer (RFC 6901) within the document
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = self.file or "the document"
        if self.line is not None:
            where += f":{self.line}"
            where += f":{self.column}" if self.column is not None else ""
        return where


class Origin(ABC):
    """Finds the location of a workload's field in its source document."""

    @abstractmethod
    def place(self, *names: str) -> Place:
        """The location of the first of these fields in the document, otherwise of the container itself.

        A name is a field of ``Workload``, or a path below it (``mounts/0``).
        """


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount.

    ``kind``: bind, volume, tmpfs, image, config, secret, npipe, cluster. ``source``: the host path of a bind, the
    reference of an image, or the name of a volume; empty: an anonymous volume.
    """

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = ""  # shared, slave …; empty: the runtime's default
    volume_type: str = ""  # the source's own term: emptyDir, persistentVolumeClaim, efs, local ...
    size: int | None = None  # bytes; None: no limit is set


# What begins the name of a device that is no path: a GPU, or another one that a driver is asked for.
GPU = "gpu"
REQUESTED = "device request"

MOUNTED = "mounted"  # the kind of an image whose files are mounted


@dataclass(frozen=True, slots=True)
class ImageUse:
    """A reference that a workload names, and what for. ``kind``: a ``Workload.container_kind``, or `MOUNTED`.

    ``container``: the container's name within its unit.
    """

    image: str
    kind: str
    container: str = ""

    @property
    def text(self) -> str:
        """The use as the start of a sentence: "the init container setup runs"."""
        if self.kind == MOUNTED:
            return f"the container {self.container} mounts the files of".replace("  ", " ")
        kind = "container" if self.kind == "container" else f"{self.kind} container"
        return f"the {kind} {self.container} runs".replace("  ", " ")


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a pod, mounted or not. ``type`` is the Kubernetes name (hostPath, emptyDir, csi ...)."""

    name: str
    type: str
    path: str = ""  # the host's path, for hostPath
    image: str = ""  # the reference of an image volume; the kubelet pulls it even if no container mounts it
    pull_policy: str = ""  # of an image volume: Always, IfNotPresent, Never; empty: not set
    token: bool = False  # a projected volume with a service account's token for the API server


@dataclass(frozen=True, slots=True)
class PortBinding:
    """``host_port`` None: not published. ``host_ip`` empty: every address."""

    container_port: int
    host_port: int | None = None
    host_ip: str = ""
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable. The value can be a secret, so it is not in any repr.

    ``origin``: literal, secret, config, file. ``withheld``: the value was left out, but its kind is known: ``secret``
    or ``plain``.
    """

    name: str
    value: str = field(default="", repr=False)
    origin: str = "literal"
    withheld: str = ""


@dataclass(frozen=True, slots=True)
class Network:
    """A network that the container joins. ``encrypted`` None: unknown. ``default``: it was not requested."""

    name: str
    driver: str = ""
    encrypted: bool | None = None
    default: bool = False


@dataclass(frozen=True, slots=True)
class Logging:
    """``driver`` as the source names it (json-file, awslogs, syslog ...)."""

    driver: str
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SelinuxOptions:
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """``kind``: liveness, readiness, startup, postStart, preStop; Compose's post_start, pre_stop; healthChecks.

    ``host``: the address it connects to; empty: the pod. ``command``: what it executes; empty: it connects.
    ``headers``: what it sends, as ``Name: value``. ``user``: of the command; empty: the container's.
    """

    kind: str
    host: str = ""
    command: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True, slots=True)
class UpdateStrategy:
    """How a service is updated or rolled back. Counts are texts, because they can be percentages ("25%").

    ``order``: start-first or stop-first. ``failure_action``: pause, continue, rollback. Times in seconds.
    """

    type: str = ""  # RollingUpdate, Recreate, OnDelete, ECS, CODE_DEPLOY, ...
    parallelism: str = ""  # tasks at once; empty: the source's default
    order: str = ""
    failure_action: str = ""
    delay: float | None = None  # seconds between two tasks
    monitor: float | None = None  # seconds in which a failure counts
    max_unavailable: str = ""  # number or percentage
    max_surge: str = ""
    min_ready_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Settings of a whole Kubernetes pod, after the kubelet's merge has been applied to each container."""

    kubernetes_version: str = ""  # version of the Pod Security Standards ("1.34"); empty: the newest known
    os: str = ""  # spec.os.name: linux, windows; empty: not set
    node_os: str = ""  # by the node selector
    host_users: bool | None = None  # False: a user namespace of its own
    host_network: bool | None = None  # None: not set, which means no
    host_pid: bool | None = None
    host_ipc: bool | None = None
    volumes: tuple[Volume, ...] = ()
    sysctls: tuple[str, ...] = ()
    apparmor_annotations: tuple[tuple[str, str], ...] = ()  # container name -> profile
    seccomp_annotations: tuple[str, ...] = ()  # values of the annotations that preceded the field
    service_account: str = ""  # empty: default
    automount_token: bool | None = None  # None: as the service account says
    fs_group: int | None = None  # group that owns the volumes
    supplemental_groups: tuple[int, ...] = ()  # of every process of the pod
    # The pod's own securityContext, for rules of the Pod Security Standards that check it separately from the
    # containers'.
    run_as_non_root: bool | None = None
    run_as_user: int | None = None  # for containers without one of their own
    seccomp: str | None = None
    selinux: SelinuxOptions | None = None
    windows_host_process: bool | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """A container engine, by ``docker info``, ``daemon.json`` and Swarm's API.

    ``settings``: scalars of daemon.json by key.
    """

    name: str
    version: str = ""
    api_version: str = ""
    os_type: str = ""
    rootless: bool | None = None  # None: not known
    storage_driver: str = ""
    logging_driver: str = ""
    log_options: tuple[tuple[str, str], ...] = ()
    log_level: str | None = None
    inter_container: bool | None = None  # icc on the default bridge
    iptables: bool | None = None  # False: Docker leaves the firewall alone
    insecure_registries: tuple[str, ...] | None = None
    userns_remap: bool | None = None  # empty: off
    seccomp: str | None = None  # builtin, default, unconfined, or a path
    no_new_privileges: bool | None = None
    live_restore: bool | None = None
    userland_proxy: bool | None = None
    experimental: bool | None = None
    authorization_plugins: tuple[str, ...] | None = None  # empty: none; None: not known
    tcp_hosts: tuple[str, ...] | None = None  # addresses it listens on in addition to its Unix socket
    tls_verify: bool | None = None  # clients of its TCP port need a certificate
    default_ulimits: tuple[str, ...] | None = None  # names
    cgroup_parent: str | None = None
    swarm_active: bool | None = None
    swarm_managers: int | None = None
    swarm_nodes: int | None = None
    swarm_autolock: bool | None = None  # managers ask for a key after a restart
    swarm_listen: str | None = None
    swarm_data_path: str | None = None
    node_certificate_days: float | None = None  # how long certificates of Swarm's nodes are valid
    overlay_networks: tuple[Network, ...] = ()
    images: int | None = None
    images_in_use: int | None = None
    containers: int | None = None
    containers_running: int | None = None
    swarm_secrets: int | None = None


@dataclass(frozen=True, slots=True)
class RunningDigest:
    """A digest that an environment runs."""

    environment: str
    digest: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What the inventory knows of the same repository and tag. ``digest``: what runs here; empty: unknown.

    ``others``: what other environments run under that tag, also if it is the same digest.
    """

    digest: str
    others: tuple[RunningDigest, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """A container as it is run, or would be run. With ``engine``: the engine itself (``image`` is then empty).

    ``name``: for users, unique within its source ("shop/Deployment/web · app"). ``unit``: the object that a user
    deploys (Compose service, Deployment, task definition). ``container``: the container's name within the unit.
    """

    name: str
    image: str
    source: str  # the id of the WorkloadSource that read it
    pointer: str = ""  # JSON pointer of the container in its document
    kind: str = ""  # Deployment, service, container, task-definition, app ...
    namespace: str = ""
    unit: str = ""
    container: str = ""
    container_kind: str = "container"  # container, init, sidecar, ephemeral
    labels: tuple[tuple[str, str], ...] = ()
    user: str | None = None  # in the runtime's form: NAME or UID, with :GROUP
    run_as_non_root: bool | None = None
    run_as_group: int | None = None  # None: the image's
    groups: tuple[str, ...] = ()  # further groups, names or numbers; of a pod: see ``pod.supplemental_groups``
    read_only_root: bool | None = None  # None: the source does not say, which means writable
    privileged: bool | None = None  # None: the source cannot say
    allow_privilege_escalation: bool | None = None  # None: allowed
    cap_add: tuple[str, ...] = ()  # upper case, without CAP_
    cap_drop: tuple[str, ...] = ()  # upper case, without CAP_
    security_opt: tuple[str, ...] = ()
    seccomp: str | None = None  # RuntimeDefault, Unconfined, Localhost, or a profile's path
    apparmor: str | None = None  # RuntimeDefault, Unconfined, Localhost, or a profile's name
    selinux: SelinuxOptions | None = None
    proc_mount: str | None = None
    windows_host_process: bool | None = None
    network_mode: str | None = None  # host, none, bridge …; None: the runtime's default
    pid_mode: str | None = None
    ipc_mode: str | None = None
    uts_mode: str | None = None
    userns_mode: str | None = None  # host: not remapped, although the engine remaps
    cgroup_parent: str | None = None
    cgroup_mode: str | None = None  # of the cgroup namespace: host, private
    sysctls: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[str, ...] = ()
    memory: int | None = None  # bytes; 0: explicitly unlimited
    memory_reservation: int | None = None  # bytes; a request or a reservation
    cpus: float | None = None  # cores
    cpu_reservation: float | None = None
    cpu_shares: int | None = None  # a weight, 1024 by default; no limit
    pids_limit: int | None = None  # 0 or None: no limit
    restart: str | None = None
    restart_max_retries: int | None = None
    mounts: tuple[Mount, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    publish_all_ports: bool | None = None  # every port of the image, on a random one of the host
    networks: tuple[Network, ...] = ()
    devices: tuple[str, ...] = ()
    environment: tuple[Variable, ...] = ()
    command: tuple[str, ...] | None = None  # replaces the image's entrypoint
    arguments: tuple[str, ...] | None = None  # replaces the image's cmd
    healthcheck: bool | None = None  # True: declared; False: disabled
    healthcheck_test: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    logging: Logging | None = None
    replicas: int | None = None
    update: UpdateStrategy | None = None
    rollback: UpdateStrategy | None = None
    disruption_budget: bool | None = None  # False: the source was read completely, and no budget covers it
    image_pull_policy: str | None = None
    pod: PodSettings | None = None
    engine: EngineFacts | None = None
    running_digest: str = ""  # repository digest of the running image, if the source knows it
    started_at: str = ""  # RFC 3339
    processes: tuple[str, ...] | None = None  # command lines of running processes, if the source knows them
    # What the source could not read of how this is run, as the rest of a sentence that begins with its name; empty:
    # everything was read. The other fields are then of no use.
    unread: str = ""
    os: str = ""  # windows, where the source says so; of a pod: see ``pod.os``
    # From the inventory, never from a document; None: there is no inventory.
    elsewhere: Elsewhere | None = field(default=None, compare=False)
    origin: Origin | None = field(default=None, compare=False, repr=False)

    # External facts are validated against this class (services.workload_documents); they never contain an origin.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"arbitrary_types_allowed": True, "extra": "forbid"}

    def place(self, *names: str) -> Place:
        """The location of the first of these fields; see ``Origin.place``."""
        return self.origin.place(*names) if self.origin is not None else Place(pointer=self.pointer)

    @property
    def label(self) -> Mapping[str, str]:
        """Labels by name."""
        return dict(self.labels)

    @property
    def images(self) -> tuple[ImageUse, ...]:
        """Every image that this container brings to a host: its own first, then those it mounts, each once.

        This is the only place that knows how a workload names an image. Every door, the audit and the inventory use
        it. A command can be a file of a mounted image, so that image runs as much as the container's own.
        """
        mounted = [mount.source for mount in self.mounts if mount.kind == "image"]
        mounted += [volume.image for volume in self.pod.volumes if volume.image] if self.pod else []
        own = (ImageUse(self.image, self.container_kind, self.container),) if self.image else ()
        return (*own, *(ImageUse(each, MOUNTED, self.container) for each in dict.fromkeys(mounted)))

    @property
    def mounted_images(self) -> tuple[ImageUse, ...]:
        """The images whose files are mounted, each once."""
        return tuple(use for use in self.images if use.kind == MOUNTED)

    def facts_json(self) -> bytes:
        """``facts`` as JSON, written without building the plain values first: it is hashed for each decision."""
        return orjson.dumps({name: getattr(self, name) for name in _facts()})

    def facts(self) -> dict[str, Any]:
        """All fields of its document as plain values, without their locations."""
        return {
            each.name: _plain_value(getattr(self, each.name)) for each in fields(self) if each.name not in _NOT_FACTS
        }


# Where it was read, and what others run: the workload itself is the same without them.
_NOT_FACTS = frozenset(("origin", "elsewhere"))


@cache
def _facts() -> tuple[str, ...]:
    return tuple(each.name for each in fields(Workload) if each.name not in _NOT_FACTS)


def _plain_value(value: Any) -> Any:
    """Not ``dataclasses.asdict``, which copies every value: a snapshot of a cluster has thousands of workloads."""
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain_value(getattr(value, each.name)) for each in fields(value)}
    return value
