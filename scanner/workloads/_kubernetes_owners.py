"""Pods of a running cluster, merged into the controllers that made them.

``kubectl get deployments,pods -o json`` lists a Deployment and its pods. They are one workload, and the pods tell which
digest runs: ``status.containerStatuses[].imageID``.
https://kubernetes.io/docs/concepts/overview/working-with-objects/owners-dependents/
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from scanner.lazy_dataclasses import dataclass
from scanner.model.workload import Workload
from scanner.patterns import lazy
from scanner.workloads.base import Node

_HASH = "pod-template-hash"
_OF_A_CRON_JOB = lazy(r"(.+)-[0-9]{8,10}")  # the minute of the schedule
_DEEPEST = 5  # owners above a pod: a saved file may have them in a circle
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_ENDED_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class KubernetesObject:
    """An object of the API, as far as it is known whatever its kind."""

    node: Node
    kind: str
    name: str
    namespace: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.namespace, self.kind, self.name


class Owners:
    """The controllers of objects that were read together."""

    def __init__(self, objects: Sequence[KubernetesObject]) -> None:
        self._by_key = {each.key: each for each in objects}

    def root(self, item: KubernetesObject) -> tuple[str, str, str] | None:
        """Return the key of the outermost controller of an object; None without a controller.

        A controller that was not read has a key as well, so that the pods of one controller are one workload.
        """
        key = None
        # Owner references come from the document and can form a circle.
        for _ in range(_DEEPEST):
            parent = self._parent(item)
            if parent is None:
                break
            key = parent
            if key not in self._by_key:
                break
            item = self._by_key[key]
        return key

    def _parent(self, item: KubernetesObject) -> tuple[str, str, str] | None:
        for reference in item.node.at("metadata", "ownerReferences").items():
            if reference.get("controller").boolean():
                kind, name = reference.get("kind").text() or "", reference.get("name").text() or ""
                return self._controller_of(item, kind, name)
        return None

    def _controller_of(self, item: KubernetesObject, kind: str, name: str) -> tuple[str, str, str]:
        """The owner itself or, where a ReplicaSet or a Job was not read, what it is made by when that was read."""
        key = (item.namespace, kind, name)
        if key in self._by_key:
            return key
        if kind == "ReplicaSet":
            made_from = item.node.at("metadata", "labels").get(_HASH).text() or ""
            outer = (item.namespace, "Deployment", name.removesuffix(f"-{made_from}") if made_from else name)
        else:
            found = _OF_A_CRON_JOB.fullmatch(name) if kind == "Job" else None
            outer = (item.namespace, "CronJob", found[1] if found else name)
        return outer if outer in self._by_key else key


@dataclass(frozen=True, slots=True)
class RunningContainer:
    """What runs of one container: repository digest and start of it, as its pod's status tells."""

    digest: str = ""
    started_at: str = ""


def running(pod: KubernetesObject) -> Mapping[str, RunningContainer]:
    """Return what runs, by the name of the container. Empty for a manifest, and for a pod that ended."""
    status = pod.node.get("status").mapping()
    # A pod of a finished Job keeps its status. It runs nothing any more, and its digest would look like a running
    # image.
    if status.get("phase").text() in _ENDED_PHASES:
        return {}
    found: dict[str, RunningContainer] = {}
    for member in _STATUSES:
        for each in status.get(member).items():
            started = each.at("state", "running", "startedAt").text() or ""
            found[each.get("name").text() or ""] = RunningContainer(_digest(each.get("imageID").text() or ""), started)
    return found


def _digest(image_id: str) -> str:
    """The repository digest. An id without a repository is of an image that no registry has, and no such digest."""
    name = image_id.rpartition("://")[2]
    return name if re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", name) else ""


def merge_owned(found: Sequence[tuple[KubernetesObject, tuple[Workload, ...]]]) -> Iterator[Workload]:
    """Yield every workload once: what a pod runs belongs to its controller.

    A container of a pod stays a workload of its own, under its controller's name, where the controller's template does
    not have it (an injected sidecar), and where another digest runs (an update that is under way).
    """
    owners = Owners([item for item, _ in found])
    made: dict[tuple[str, str, str], list[tuple[KubernetesObject, tuple[Workload, ...]]]] = defaultdict(list)
    kept: list[tuple[KubernetesObject, tuple[Workload, ...]]] = []
    for item, workloads in found:
        root = owners.root(item) if workloads else None
        if root is None:
            kept.append((item, workloads))
        else:
            made[root].append((item, workloads))
    for item, workloads in kept:
        if item.kind == "Pod":
            yield from _with_status(workloads, running(item))
        else:
            yield from _with_pods(item.key, workloads, made.pop(item.key, []))
    for key, rest in made.items():  # whose controller was not read
        yield from _with_pods(key, (), rest)


def _with_status(workloads: Sequence[Workload], status: Mapping[str, RunningContainer]) -> Iterator[Workload]:
    for workload in workloads:
        own = status.get(workload.container, RunningContainer())
        yield (
            replace(workload, running_digest=own.digest, started_at=own.started_at)
            if own != RunningContainer()
            else workload
        )


def _with_pods(
    key: tuple[str, str, str],
    own: Sequence[Workload],
    made: Sequence[tuple[KubernetesObject, tuple[Workload, ...]]],
) -> Iterator[Workload]:
    pods = [each for item, workloads in made if item.kind == "Pod" for each in _with_status(workloads, running(item))]
    # The newest first: it is what the controller wants by now. What a status does not tell comes last.
    pods.sort(key=lambda each: each.started_at, reverse=True)
    others = [each for item, workloads in made if item.kind != "Pod" for each in workloads]
    by_container = {each.container: each for each in own}
    seen: set[tuple[str, str, str]] = set()
    merged_with: dict[str, Workload] = {}
    extra: list[Workload] = []
    for each in (*pods, *others):
        template = by_container.get(each.container)
        same = template is not None and _runs_the_same(template, each)
        if same and each.container not in merged_with and each.running_digest:
            merged_with[each.container] = each
        elif not (same and each.running_digest in ("", merged_with.get(each.container, each).running_digest)):
            # A Deployment with a hundred equal pods is one workload here, and not a hundred.
            fingerprint = (each.container, each.image, each.running_digest)
            if fingerprint not in seen:
                seen.add(fingerprint)
                extra.append(_with_key(each, key, number=sum(1 for one in extra if one.container == each.container)))
    for template in own:
        pod = merged_with.get(template.container)
        yield replace(template, running_digest=pod.running_digest, started_at=pod.started_at) if pod else template
    yield from (_distinct(each, by_container) for each in extra)


def _runs_the_same(template: Workload, pod: Workload) -> bool:
    """Whether a pod's container is the template's: a pod of an update that is under way has another image."""
    return template.image == pod.image


def _with_key(workload: Workload, key: tuple[str, str, str], number: int) -> Workload:
    namespace, kind, name = key
    again = f" ({number + 1})" if number else ""
    shown = f"{'/'.join(filter(None, (namespace, kind, name)))} · {workload.container}{again}"
    return replace(workload, name=shown, kind=kind, unit=name)


def _distinct(workload: Workload, templates: Mapping[str, Workload]) -> Workload:
    """A name of its own beside the template's container."""
    return replace(workload, name=f"{workload.name} (still running)") if workload.container in templates else workload
