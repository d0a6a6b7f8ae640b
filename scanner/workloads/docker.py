"""Docker: the running engine, or saved output of ``docker inspect``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scanner.model.workload import Network, Workload
from scanner.workloads import _docker_engine, _docker_inspect
from scanner.workloads._documents import Document
from scanner.workloads.base import Files, Node, WorkloadSource


class DockerEngine(WorkloadSource):
    """See ``WorkloadSource``.

    Files contain output of ``docker inspect``, ``docker network inspect``, ``docker volume inspect`` or
    ``docker info --format '{{json .}}'``, or are a ``daemon.json``. A running engine gives the same data by its API.
    """

    id = "docker"
    title = "Docker (the running engine, or FILE with the output of docker inspect)"
    targets = (
        (
            "docker",
            "the running engine, its settings and its containers (`DOCKER_HOST` is respected)",
        ),
        (
            "docker:FILE",
            "the output of `docker inspect`, `docker network inspect`, `docker volume inspect` or "
            "`docker info --format '{{json .}}'`, and `daemon.json`",
        ),
    )

    def recognises(self, document: Document) -> bool:
        """See ``WorkloadSource.recognises``."""
        value = document.value
        values = value if isinstance(value, list) else [value]
        known = (_docker_inspect.is_container, _docker_engine.is_info, _docker_engine.is_daemon_file)
        return any(test(each) for each in values[:100] for test in known)

    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """See ``WorkloadSource.read``."""
        nodes = [node for document in documents for node in _docker_inspect.objects(document)]
        networks = _docker_inspect.networks_by_id(n for n in nodes if _docker_inspect.is_network(n.value))
        volumes = _docker_inspect.volume_options(n for n in nodes if _docker_inspect.is_volume(n.value))
        found = [(node, workload) for node in nodes for workload in self._workloads(node, networks, volumes)]
        return tuple(_docker_inspect.with_joined_namespaces(found))

    def running(self) -> tuple[Workload, ...]:
        """See ``WorkloadSource.running``: the engine itself, then its running containers."""
        with _docker_engine.connection() as client:
            found = [_docker_engine.as_node(each, "docker network inspect") for each in client.api.networks()]
            networks = _docker_inspect.networks_by_id(iter(found))
            there = client.api.volumes().get("Volumes") or ()
            volumes = _docker_inspect.volume_options(
                _docker_engine.as_node(each, "docker volume inspect") for each in there
            )
            info = _docker_engine.as_node(client.info(), "docker info")
            engine = _docker_engine.engine(info, _docker_engine.local_daemon_file(), networks)
            bridge = next((n for n in found if n.get("Name").text() == "bridge"), None)
            # `daemon.json` is often not readable. The default bridge shows the effect of its setting `icc`.
            if engine.engine is not None and engine.engine.inter_container is None and bridge is not None:
                allowed = _docker_engine.bridge_allows_traffic(bridge)
                engine = replace(engine, engine=replace(engine.engine, inter_container=allowed))
            containers = tuple(self._containers(client, networks, volumes))
            return (engine, *_docker_inspect.with_joined_namespaces(containers))

    def _containers(
        self, client: Any, networks: dict[str, Network], volumes: dict[str, Mapping[str, str]]
    ) -> Iterator[tuple[Node, Workload]]:
        # Containers end while they are listed. One that is gone must not end the whole audit.
        for each in client.containers.list(ignore_removed=True):
            node = _docker_engine.as_node(each.attrs, f"docker inspect {each.name}")
            digest, processes = _digest(each), _processes(each)
            yield node, _docker_inspect.container(node, networks, volumes, digest=digest, processes=processes)

    def _workloads(
        self, node: Node, networks: dict[str, Network], volumes: dict[str, Mapping[str, str]]
    ) -> Iterator[Workload]:
        if _docker_inspect.is_container(node.value):
            yield _docker_inspect.container(node, networks, volumes)
        elif _docker_engine.is_info(node.value):
            yield _docker_engine.engine(node, None, networks or None)
        elif _docker_engine.is_daemon_file(node.value):
            yield _docker_engine.engine(None, node)
        elif not (_docker_inspect.is_network(node.value) or _docker_inspect.is_volume(node.value)):
            service = _docker_inspect.is_service(node.value)
            raise node.error(
                "is a service: audit it as swarm:FILE" if service else "is not output of docker inspect for a container"
            )


def _digest(container: Any) -> str:
    """Return the repository digest of a container's image. Empty for a local image, and one that was removed."""
    from docker.errors import NotFound

    try:
        digests = (container.image.attrs if container.image else {}).get("RepoDigests") or []
    except NotFound:
        # A removed image still runs. It must not end the report of everything else that does.
        return ""
    return str(digests[0]) if digests else ""


def _processes(container: Any) -> tuple[str, ...] | None:
    """Return the command lines of a container's processes. None if the engine cannot list them."""
    from docker.errors import APIError

    try:
        top = container.top(ps_args="-eo args")
    except APIError:
        return None
    return tuple(" ".join(words) for words in top.get("Processes") or ())
