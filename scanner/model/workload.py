"""How a container is run: one shape for docker inspect, compose, Swarm, Kubernetes, ECS and Marathon."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """``kind``: bind, volume, tmpfs. ``source`` is the host path for a bind, the volume's name for a volume."""

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = ""


@dataclass(frozen=True, slots=True)
class PortBinding:
    container_port: int
    host_port: int | None = None
    host_ip: str = ""
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Workload:
    """A container as it is, or would be, run. None means: not said, so the runtime's default holds."""

    name: str
    image: str
    source: str  # docker, compose, swarm, kubernetes, ecs, marathon
    pointer: str = ""  # where in the document
    user: str | None = None
    run_as_non_root: bool | None = None
    read_only_root: bool | None = None
    privileged: bool | None = None
    allow_privilege_escalation: bool | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    seccomp: str | None = None
    apparmor: str | None = None
    network_mode: str | None = None
    pid_mode: str | None = None
    ipc_mode: str | None = None
    uts_mode: str | None = None
    userns_mode: str | None = None
    memory: int | None = None  # bytes
    cpus: float | None = None
    pids_limit: int | None = None
    restart: str | None = None
    restart_max_retries: int | None = None
    mounts: tuple[Mount, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    devices: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    healthcheck: bool | None = None  # True: declared; False: switched off
    replicas: int | None = None
