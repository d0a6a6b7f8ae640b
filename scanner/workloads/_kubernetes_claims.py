"""Directories of the host that pods mount by way of a claim.

The Pod Security Standards allow claims, so a PersistentVolume of the host's root, bound to a claim, gets past the rule
about ``hostPath``. https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scanner.model.workload import Mount, Workload
from scanner.workloads._kubernetes_owners import KubernetesObject

_CLAIM = "persistentVolumeClaim"  # the type of a pod's volume
_DEFAULT = "default"  # the namespace of an object without one
_CLAIM_KIND = "PersistentVolumeClaim"


def host_paths_of_claims(objects: Sequence[KubernetesObject]) -> Mapping[tuple[str, str], str]:
    """Return the host's directory of each claim that is bound to one, by namespace and name of the claim."""
    volumes = {each.name: path for each in objects if each.kind == "PersistentVolume" and (path := _path(each))}
    found: dict[tuple[str, str], str] = {}
    if not volumes:
        return found
    for each in objects:
        spec = each.node.get("spec").mapping() if each.kind in ("PersistentVolume", _CLAIM_KIND) else None
        if spec is None:
            continue
        if each.kind == _CLAIM_KIND:
            path = volumes.get(spec.get("volumeName").string() or "") or _of_class(each, objects, volumes)
            if path:
                found[each.namespace or _DEFAULT, each.name] = path
        elif each.name in volumes and (claim := spec.get("claimRef").mapping()).value is not None:
            found[claim.get("namespace").string() or _DEFAULT, claim.get("name").string() or ""] = volumes[each.name]
    return found


def _path(volume: KubernetesObject) -> str:
    spec = volume.node.get("spec").mapping()
    return next((path for kind in ("hostPath", "local") if (path := spec.at(kind, "path").string())), "")


def _of_class(claim: KubernetesObject, objects: Sequence[KubernetesObject], volumes: Mapping[str, str]) -> str:
    """Return the path of a volume of the claim's storage class that is free for any claim."""
    name = claim.node.at("spec", "storageClassName").string()
    if name is None:
        return ""  # the default class of the cluster makes a volume
    for each in objects:
        if each.kind == "PersistentVolume" and each.name in volumes:
            spec = each.node.get("spec")
            if spec.get("claimRef").value is None and (spec.get("storageClassName").string() or "") == name:
                return volumes[each.name]
    return ""


def with_host_paths(workload: Workload, claims: Mapping[tuple[str, str], str]) -> Workload:
    """Return the workload with the mounts of such claims as what they are: directories of the host."""
    if not any(each.volume_type == _CLAIM for each in workload.mounts):
        return workload
    return replace(workload, mounts=tuple(_as_bind(each, workload.namespace, claims) for each in workload.mounts))


def _as_bind(mount: Mount, namespace: str, claims: Mapping[tuple[str, str], str]) -> Mount:
    path = claims.get((namespace or _DEFAULT, mount.source)) if mount.volume_type == _CLAIM else None
    return replace(mount, kind="bind", source=path) if path else mount
