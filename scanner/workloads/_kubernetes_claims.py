"""Directories of the host that pods mount by way of a claim.

The Pod Security Standards allow claims, so a PersistentVolume of the host's root, bound to a claim, gets past the rule
about ``hostPath``. https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from scanner.model.workload import Mount, Workload
from scanner.workloads._kubernetes_owners import KubernetesObject
from scanner.workloads.base import Node

_CLAIM = "persistentVolumeClaim"  # the type of a pod's volume
_DEFAULT = "default"  # the namespace of an object without one
_CLAIM_KIND = "PersistentVolumeClaim"


def host_paths_of_claims(objects: Sequence[KubernetesObject]) -> Mapping[tuple[str, str], str]:
    """Return the host's directory of each claim that is bound to one, by namespace and name of the claim.

    For a template of a StatefulSet, ``StatefulSet/template`` is the name.
    """
    volumes = {each.name: path for each in objects if each.kind == "PersistentVolume" and (path := _path(each))}
    found: dict[tuple[str, str], str] = {}
    if not volumes:
        return found
    free = _free_by_class(objects, volumes)
    for each in objects:
        spec = each.node.get("spec").mapping() if each.kind in ("PersistentVolume", _CLAIM_KIND) else None
        if spec is None:
            continue
        if each.kind == _CLAIM_KIND:
            path = volumes.get(spec.get("volumeName").string() or "") or free.get(_class(spec), "")
            if path:
                found[each.namespace or _DEFAULT, each.name] = path
        elif each.name in volumes and (claim := spec.get("claimRef").mapping()).value is not None:
            found[claim.get("namespace").string() or _DEFAULT, claim.get("name").string() or ""] = volumes[each.name]
    for each in objects:
        namespace = each.namespace or _DEFAULT
        for name, spec in _templates(each) if each.kind == "StatefulSet" else ():
            path = volumes.get(spec.get("volumeName").string() or "") or free.get(_class(spec), "")
            # The first pod's claim can also be made, or its volume reserved, in advance.
            if path := path or found.get((namespace, f"{name}-{each.name}-0"), ""):
                found[namespace, f"{each.name}/{name}"] = path
    return found


def _templates(stateful: KubernetesObject) -> Iterator[tuple[str, Node]]:
    for template in stateful.node.get("spec").mapping().get("volumeClaimTemplates").items():
        yield template.mapping().get("metadata").mapping().get("name").string() or "", template.get("spec").mapping()


def _path(volume: KubernetesObject) -> str:
    spec = volume.node.get("spec").mapping()
    return next((path for kind in ("hostPath", "local") if (path := spec.at(kind, "path").string())), "")


def _free_by_class(objects: Sequence[KubernetesObject], volumes: Mapping[str, str]) -> Mapping[str | None, str]:
    """Return the path of a volume that is free for any claim, by storage class.

    Once for all claims: a document can have a hundred thousand.
    """
    found: dict[str | None, str] = {}
    for each in objects:
        if each.kind == "PersistentVolume" and each.name in volumes:
            spec = each.node.get("spec").mapping()
            if spec.get("claimRef").value is None:
                found.setdefault(_class(spec) or "", volumes[each.name])
    return found


def _class(spec: Node) -> str | None:
    """The storage class of a claim or volume. None, of a claim: the cluster's default one, which makes a volume."""
    return spec.get("storageClassName").string()


def with_host_paths(workload: Workload, claims: Mapping[tuple[str, str], str]) -> Workload:
    """Return the workload with the mounts of such claims as what they are: directories of the host."""
    if not any(each.volume_type == _CLAIM for each in workload.mounts):
        return workload
    return replace(workload, mounts=tuple(_as_bind(each, workload, claims) for each in workload.mounts))


def _as_bind(mount: Mount, workload: Workload, claims: Mapping[tuple[str, str], str]) -> Mount:
    if mount.volume_type != _CLAIM:
        return mount
    namespace = workload.namespace or _DEFAULT
    path = claims.get((namespace, mount.source))
    if workload.kind == "StatefulSet":
        path = claims.get((namespace, f"{workload.unit}/{mount.source}")) or path
    return replace(mount, kind="bind", source=path) if path else mount
