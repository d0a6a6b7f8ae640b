"""Docker Swarm: the running services, saved output of ``docker service inspect``, or a stack file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.errors import UsageError
from scanner.model.workload import Network, Workload
from scanner.workloads import _compose_services, _docker_engine, _docker_inspect
from scanner.workloads._documents import Document
from scanner.workloads.base import Files, Node, WorkloadSource


class SwarmServices(WorkloadSource):
    """See ``WorkloadSource``.

    Output of ``docker network inspect`` in the same documents provides which networks are encrypted.
    """

    id = "swarm"
    title = "Docker Swarm (the running services, FILE with the output of docker service inspect, or a stack file)"
    targets = (
        (
            "swarm",
            "the services of the swarm that the local engine manages",
        ),
        (
            "swarm:FILE",
            "the output of `docker service inspect` (with `docker network inspect`: whether networks "
            "are encrypted), or a stack file",
        ),
    )
    compose_tags = True

    def recognises(self, document: Document) -> bool:
        """See ``WorkloadSource.recognises``."""
        value = document.value
        values = value if isinstance(value, list) else [value]
        return any(_docker_inspect.is_service(each) for each in values[:100])

    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """See ``WorkloadSource.read``."""
        stacks = [document for document in documents if _compose_services.looks_like(document)]
        nodes = [node for document in documents if document not in stacks for node in _docker_inspect.objects(document)]
        networks = _docker_inspect.networks_by_id(n for n in nodes if _docker_inspect.is_network(n.value))
        services = tuple(workload for node in nodes for workload in self._workloads(node, networks))
        return (*(_compose_services.read(stacks, files, {}, self.id) if stacks else ()), *services)

    def running(self) -> tuple[Workload, ...]:
        """See ``WorkloadSource.running``: the services of the swarm that the local engine manages."""
        with _docker_engine.connection() as client:
            # A worker node answers the question for services with an error that does not say why.
            if client.info().get("Swarm", {}).get("ControlAvailable") is not True:
                raise UsageError(
                    "the Docker engine is not a swarm manager",
                    reason="no_swarm",
                    hint="run this on a manager, or audit a saved inspect: dockwarden audit swarm:FILE",
                )
            found = [_docker_engine.as_node(each, "docker network inspect") for each in client.api.networks()]
            networks = _docker_inspect.networks_by_id(iter(found))
            services = [_docker_engine.as_node(each, "docker service inspect") for each in client.api.services()]
            return tuple(_docker_inspect.service(node, networks) for node in services)

    def _workloads(self, node: Node, networks: dict[str, Network]) -> Iterator[Workload]:
        if _docker_inspect.is_service(node.value):
            yield _docker_inspect.service(node, networks)
        elif not _docker_inspect.is_network(node.value):
            raise node.error("is neither output of docker service inspect nor a stack file")
