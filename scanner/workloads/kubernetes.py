"""Kubernetes manifests: one workload for each container of a pod or pod template.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scanner.model.workload import (
    Mount,
    PodSettings,
    PortBinding,
    Probe,
    SelinuxOptions,
    UpdateStrategy,
    Variable,
    Volume,
    Workload,
)
from scanner.workloads import _kubernetes_custom
from scanner.workloads._documents import Document
from scanner.workloads._kubernetes_claims import host_paths_of_claims, with_host_paths
from scanner.workloads._kubernetes_owners import KubernetesObject, merge_owned
from scanner.workloads._quantities import quantity
from scanner.workloads.base import Files, Node, NodeOrigin, WorkloadSource

# The path of the pod template by kind. Other kinds with a template at spec.template are read, too (Rollout, …).
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
_USUAL_TEMPLATE = ("spec", "template")
_WITH_TEMPLATE = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job")
_KINDS = frozenset((*_TEMPLATES, *_WITH_TEMPLATE))
_GROUPS = ("v1", "apps/", "batch/", "extensions/")
# The API groups of Kubernetes itself. Their objects without pods run nothing. The suffix alone does not tell: groups of
# other projects end with k8s.io as well (jobset.x-k8s.io, leaderworkerset.x-k8s.io, kueue.x-k8s.io).
# https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.34/
_BUILT_IN = frozenset(
    (
        *("", "apps", "autoscaling", "batch", "extensions", "policy"),
        *("admission.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"),
        *("auditregistration.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "certificates.k8s.io"),
        *("coordination.k8s.io", "custom.metrics.k8s.io", "discovery.k8s.io", "events.k8s.io"),
        *("external.metrics.k8s.io", "flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "metrics.k8s.io"),
        *("networking.k8s.io", "node.k8s.io", "rbac.authorization.k8s.io", "resource.k8s.io", "scheduling.k8s.io"),
        *("settings.k8s.io", "storage.k8s.io", "storagemigration.k8s.io"),
    )
)
# Groups of objects that hold patterns of pods, or schemas, and run none; also the groups below them
# (policies.kyverno.io).
_PATTERNS = ("kyverno.io", "gatekeeper.sh", "apiextensions.k8s.io", "admissionregistration.k8s.io")
_CONTAINERS = (("initContainers", "init"), ("containers", "container"), ("ephemeralContainers", "ephemeral"))
_SECCOMP = ("seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_READ_ONLY_VOLUMES = {"configMap": "config", "secret": "secret", "projected": "secret", "downwardAPI": "config"}
_PROPAGATION = {"Bidirectional": "rshared", "HostToContainer": "rslave", "None": "rprivate"}

# The paths of a workload's fields: in the container, its pod, or the object with the pod template.
_PATHS: Mapping[str, tuple[str, ...]] = {
    "image": ("image",),
    "name": ("name",),
    "user": ("securityContext/runAsUser", "pod:securityContext/runAsUser"),
    "run_as_non_root": ("securityContext/runAsNonRoot", "pod:securityContext/runAsNonRoot"),
    "run_as_group": ("securityContext/runAsGroup", "pod:securityContext/runAsGroup"),
    "read_only_root": ("securityContext/readOnlyRootFilesystem", "securityContext"),
    "privileged": ("securityContext/privileged",),
    "allow_privilege_escalation": ("securityContext/allowPrivilegeEscalation", "securityContext"),
    "cap_add": ("securityContext/capabilities/add",),
    "cap_drop": ("securityContext/capabilities/drop", "securityContext/capabilities", "securityContext"),
    "seccomp": ("securityContext/seccompProfile", "pod:securityContext/seccompProfile"),
    "apparmor": ("securityContext/appArmorProfile", "pod:securityContext/appArmorProfile"),
    "selinux": ("securityContext/seLinuxOptions", "pod:securityContext/seLinuxOptions"),
    "proc_mount": ("securityContext/procMount",),
    "windows_host_process": (
        "securityContext/windowsOptions/hostProcess",
        "pod:securityContext/windowsOptions/hostProcess",
    ),
    "memory": ("resources/limits/memory", "pod:resources/limits/memory", "resources/limits", "resources"),
    "memory_reservation": ("resources/requests/memory", "resources/requests", "resources"),
    "cpus": ("resources/limits/cpu", "pod:resources/limits/cpu", "resources/limits", "resources"),
    "cpu_reservation": ("resources/requests/cpu", "resources/requests", "resources"),
    "mounts": ("volumeMounts",),
    "devices": ("volumeDevices",),
    "ports": ("ports",),
    "environment": ("env", "envFrom"),
    "command": ("command",),
    "arguments": ("args",),
    "healthcheck": ("livenessProbe", "readinessProbe"),
    "liveness": ("livenessProbe",),
    "readiness": ("readinessProbe",),
    "startup": ("startupProbe",),
    "postStart": ("lifecycle/postStart",),
    "preStop": ("lifecycle/preStop",),
    "image_pull_policy": ("imagePullPolicy", "image"),
    "sysctls": ("pod:securityContext/sysctls",),
    "supplemental_groups": ("pod:securityContext/supplementalGroups",),
    "fs_group": ("pod:securityContext/fsGroup",),
    "network_mode": ("pod:hostNetwork",),
    "pid_mode": ("pod:hostPID",),
    "ipc_mode": ("pod:hostIPC",),
    "userns_mode": ("pod:hostUsers",),
    "volumes": ("pod:volumes",),
    "service_account": ("pod:serviceAccountName",),
    "automount_token": ("pod:automountServiceAccountToken",),
    "restart": ("pod:restartPolicy",),
    "replicas": ("object:spec/replicas", "object:spec"),
    "update": ("object:spec/updateStrategy", "object:spec/strategy", "object:spec"),
    "min_ready_seconds": ("object:spec/minReadySeconds", "object:spec"),
    "disruption_budget": ("object:metadata",),
    "namespace": ("object:metadata/namespace", "object:metadata"),
    "pod": ("pod:",),
}


class KubernetesManifests(WorkloadSource):
    """See ``WorkloadSource``.

    The security contexts of pod and container are merged as the kubelet does: values of the container win.
    """

    id = "kubernetes"
    title = "Kubernetes manifests (YAML or JSON; a file, a directory, or - for standard input)"
    targets = (
        (
            "kubernetes:FILE|DIR|-",
            "manifests, also from standard input: every object with a pod template (Pod, Deployment, "
            "StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, PodTemplate, lists, custom resources with a "
            "pod template or containers such as Argo Rollouts, Knative Services and DeploymentConfigs, Argo "
            "Workflows, Tekton Tasks and Pipelines)",
        ),
    )
    yaml_1_1 = True
    directories = True

    def recognises(self, document: Document) -> bool:
        """See ``WorkloadSource.recognises``."""
        value = document.value
        return (
            isinstance(value, dict) and isinstance(value.get("apiVersion"), str) and isinstance(value.get("kind"), str)
        )

    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """See ``WorkloadSource.read``."""
        objects = [item for document in documents for item in _objects(Node(document))]
        budgets = [each for each in (_budget(item) for item in objects) if each is not None]
        claims = host_paths_of_claims(objects)
        found = [(item, tuple(_workloads(item, budgets))) for item in objects]
        if claims:
            found = [(item, tuple(with_host_paths(each, claims) for each in workloads)) for item, workloads in found]
        return tuple(merge_owned(found))


def _objects(node: Node) -> Iterator[KubernetesObject]:
    """Yield the object of a document, or the items of a List."""
    value = node.value
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("kind"), str)
        or not isinstance(value.get("apiVersion"), str)
    ):
        raise node.error("is not a Kubernetes object: apiVersion and kind must be text")
    kind: str = value["kind"]
    if kind == "List" and "items" not in value:
        raise node.error("is a List without items: it was cut off, or is no answer of kubectl")
    if kind.endswith("List") and "items" in value:
        _check_is_whole(node)
        inner = kind.removesuffix("List")
        for item in node.get("items").items():
            # Items of a PodList have no kind of their own.
            if inner and isinstance(item.value, dict) and "kind" not in item.value:
                item = Node.of(
                    item.document, item.pointer, {"apiVersion": value["apiVersion"], "kind": inner, **item.value}
                )
            yield from _objects(item)
        return
    metadata = node.get("metadata").mapping()
    name = metadata.string_of("name") or metadata.string_of("generateName") or ""
    yield KubernetesObject(node, kind, name, metadata.string_of("namespace") or "")


def _check_is_whole(node: Node) -> None:
    """Raise UsageError if a list is one page of several.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
    """
    metadata = node.get("metadata").mapping()
    if metadata.string_of("continue"):
        left = metadata.integer_of("remainingItemCount")
        more = f"{left} more objects follow" if left else "more objects follow"
        error = node.error(f"is one page of a list, and {more}: nothing is known of them")
        error.hint = "read all pages: kubectl get does, and kubectl get --raw without limit="
        raise error


def _templates(item: KubernetesObject) -> Iterator[Node]:
    """Yield the nodes with a pod's ``metadata`` and ``spec``. None: it runs no pod. Raises UsageError."""
    version = item.node.string_of("apiVersion") or ""
    if item.kind in _TEMPLATES:
        yield item.node.at(*_TEMPLATES[item.kind])
    elif item.kind in _WITH_TEMPLATE and not _is_namesake(item, version):
        yield item.node.at(*_USUAL_TEMPLATE)
    elif (known := next((kind for kind in _KINDS if kind.lower() == item.kind.lower()), None)) and _is_ours(version):
        raise item.node.get("kind").error(f"is {item.kind[:80]!r}: write {known}")
    elif not _holds_patterns(version):
        yield from _kubernetes_custom.pods(item)


def _is_namesake(item: KubernetesObject, version: str) -> bool:
    """Return whether a custom resource only has the name of a workload's kind, as the Job of Volcano has."""
    return bool(version) and not _is_ours(version) and item.node.at(*_USUAL_TEMPLATE).value is None


def _is_ours(version: str) -> bool:
    """Return whether an API version is of Kubernetes' own workloads."""
    return any(version == group or (group.endswith("/") and version.startswith(group)) for group in _GROUPS)


@dataclass(frozen=True)
class _Budget:
    """A PodDisruptionBudget: its namespace, and the requirements of its label selector, all of which must hold.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/
    """

    namespace: str
    requirements: tuple[tuple[str, str, tuple[str, ...]], ...]
    selects: bool  # an empty selector selects every pod of the namespace; a missing one none

    def covers(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Return whether it protects pods with these labels."""
        return (
            self.selects
            and self.namespace == namespace
            and all(self._holds(labels.get(key), operator, values) for key, operator, values in self.requirements)
        )

    @staticmethod
    def _holds(value: str | None, operator: str, values: Sequence[str]) -> bool:
        match operator:
            case "In":
                return value in values
            case "NotIn":
                return value not in values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        return False


def _budget(item: KubernetesObject) -> _Budget | None:
    """Return a PodDisruptionBudget. None: another kind."""
    if item.kind != "PodDisruptionBudget":
        return None
    selector = item.node.at("spec", "selector").mapping()
    found: list[tuple[str, str, tuple[str, ...]]] = []
    found += ((key, "In", (value.string() or "",)) for key, value in selector.get("matchLabels").members())
    found += (
        (each.string_of("key") or "", each.string_of("operator") or "", each.get("values").strings())
        for each in selector.get("matchExpressions").items()
    )
    # An empty selector selects every pod of the namespace since policy/v1, and none before. A missing one: none.
    every = selector.value is not None and item.node.string_of("apiVersion") != "policy/v1beta1"
    return _Budget(item.namespace, tuple(found), bool(found) or every)


def _workloads(item: KubernetesObject, budgets: Sequence[_Budget]) -> Iterator[Workload]:
    for template in _templates(item):
        yield from _of_template(item, template, budgets)
    if _is_custom(item) and (where := _kubernetes_custom.unread(item)) is not None:
        yield _unread(item, *where)


def _is_custom(item: KubernetesObject) -> bool:
    version = item.node.string_of("apiVersion") or ""
    return _group(version) not in _BUILT_IN and not _holds_patterns(version)


def _holds_patterns(version: str) -> bool:
    return f".{_group(version)}".endswith(tuple(f".{each}" for each in _PATTERNS))


def _group(version: str) -> str:
    """Return the group of an API version. Empty: the core group, ``v1``."""
    return version.partition("/")[0] if "/" in version else ""


def _unread(item: KubernetesObject, node: Node, message: str) -> Workload:
    return Workload(
        name="/".join(filter(None, (item.namespace, item.kind, item.name))),
        image="",
        source="kubernetes",
        pointer=node.pointer,
        kind=item.kind,
        namespace=item.namespace,
        unit=item.name,
        unread=message,
        origin=NodeOrigin(node, _PATHS, {"pod": item.node.get("spec"), "object": item.node}),
    )


def _of_template(item: KubernetesObject, template: Node, budgets: Sequence[_Budget]) -> Iterator[Workload]:
    spec = template.get("spec").mapping()
    if spec.value is None:
        raise spec.error("is missing: the object needs a pod spec")
    labels = {key: value.string() or "" for key, value in template.at("metadata", "labels").members()}
    covered = any(budget.covers(item.namespace, labels) for budget in budgets)
    pod = _pod(template, spec)
    volumes = {each.string_of("name") or "": each for each in spec.get("volumes").items()}
    found = 0
    for member, kind in _CONTAINERS:
        for container in spec.get(member).items():
            found += 1
            yield _container(item, labels, spec, pod, container.mapping(), kind, covered, volumes)
    if not found:
        raise spec.error("has no containers")


def _pod(template: Node, spec: Node) -> PodSettings:
    context = spec.get("securityContext").mapping()
    annotations = template.at("metadata", "annotations").members()
    return PodSettings(
        os=spec.at("os", "name").string() or "",
        node_os=spec.at("nodeSelector", "kubernetes.io/os").string() or "",
        host_users=spec.boolean_of("hostUsers"),
        host_network=spec.boolean_of("hostNetwork"),
        host_pid=spec.boolean_of("hostPID"),
        host_ipc=spec.boolean_of("hostIPC"),
        volumes=tuple(_volume(each) for each in spec.get("volumes").items()),
        apparmor_annotations=tuple(
            (key.removeprefix(_APPARMOR), value.string() or "")
            for key, value in annotations
            if key.startswith(_APPARMOR)
        ),
        seccomp_annotations=tuple(value.string() or "" for key, value in annotations if key.startswith(_SECCOMP)),
        service_account=spec.string_of("serviceAccountName") or spec.string_of("serviceAccount") or "",
        automount_token=spec.boolean_of("automountServiceAccountToken"),
        **(_pod_context(context) if context.value else {}),
    )


def _pod_context(context: Node) -> dict[str, Any]:
    """Return the settings of a pod that its security context has."""
    return {
        "sysctls": tuple(each.string_of("name") or "" for each in context.get("sysctls").items()),
        "fs_group": context.integer_of("fsGroup"),
        "supplemental_groups": tuple(
            each.integer() or 0 for each in context.get("supplementalGroups").items() if each.value is not None
        ),
        "run_as_non_root": context.boolean_of("runAsNonRoot"),
        "run_as_user": context.integer_of("runAsUser"),
        "seccomp": _profile(context.get("seccompProfile")),
        "selinux": _selinux(context.get("seLinuxOptions")),
        "windows_host_process": context.at("windowsOptions", "hostProcess").boolean(),
    }


def _volume(node: Node) -> Volume:
    types = [key for key, value in node.members() if key != "name" and value.value is not None]
    # Default of an entry without a source is emptyDir:
    # https://pkg.go.dev/k8s.io/kubernetes/pkg/apis/core/v1#SetDefaults_Volume
    kind = types[0] if types else "emptyDir"
    # Kubernetes refuses it. Which of them a reader takes must not decide what is judged.
    if len(types) > 1:
        raise node.error(f"has more than one type: {', '.join(types[:5])[:80]}")
    path = node.get(kind).string_of("path") or "" if kind == "hostPath" else ""
    image = node.get(kind).string_of("reference") or "" if kind == "image" else ""
    pull_policy = node.get(kind).string_of("pullPolicy") or "" if kind == "image" else ""
    token = kind == "projected" and any(_is_api_token(each) for each in node.get(kind).get("sources").items())
    return Volume(node.string_of("name") or "", kind, path, image, pull_policy, token)


def _is_api_token(source: Node) -> bool:
    """Return whether a source of a projected volume is a token that the API server accepts: one without an audience.

    https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
    """
    token = source.get("serviceAccountToken").mapping()
    return token.value is not None and not token.string_of("audience")


def _profile(node: Node) -> str | None:
    """Return the type of a seccomp or AppArmor profile, with the name of a Localhost one ("Localhost/audit.json")."""
    kind = node.mapping().string_of("type")
    name = node.string_of("localhostProfile")
    return f"{kind}/{name}" if kind and name else kind


def _selinux(node: Node) -> SelinuxOptions | None:
    if node.mapping().value is None:
        return None
    return SelinuxOptions(*(node.get(key).string() or "" for key in ("user", "role", "type", "level")))


def _container(
    item: KubernetesObject,
    labels: Mapping[str, str],
    spec: Node,
    pod: PodSettings,
    node: Node,
    kind: str,
    covered: bool,
    volumes: Mapping[str, Node],
) -> Workload:
    own = node.get("securityContext").mapping()
    shared = spec.get("securityContext").mapping()
    name = node.string_of("name") or ""
    image = node.string_of("image")
    if not image:
        raise node.error("has no image")
    # A chart that was not rendered parses as YAML. Its image would be an unknown name, and the whole audit worthless
    # without an error.
    if "{{" in image and not _kubernetes_custom.is_templated(item):
        raise node.get("image").error("contains an unrendered template")
    user, group = _merged_integer(own, shared, "runAsUser"), _merged_integer(own, shared, "runAsGroup")
    limits, requests = _resources(node, spec, "limits"), _resources(node, spec, "requests")
    if kind == "init" and node.string_of("restartPolicy") == "Always":
        kind = "sidecar"
    mounts, devices = _mounts(node, volumes)
    object_ = item.node
    return Workload(
        name=f"{'/'.join(filter(None, (item.namespace, item.kind, item.name)))} · {name}",
        image=image,
        source="kubernetes",
        pointer=node.pointer,
        kind=item.kind,
        namespace=item.namespace,
        unit=item.name,
        container=name,
        container_kind=kind,
        labels=tuple(labels.items()),
        user=None if user is None else f"{user}" if group is None else f"{user}:{group}",
        run_as_non_root=_merged_boolean(own, shared, "runAsNonRoot"),
        run_as_group=group,
        read_only_root=own.boolean_of("readOnlyRootFilesystem"),
        privileged=own.boolean_of("privileged"),
        allow_privilege_escalation=own.boolean_of("allowPrivilegeEscalation"),
        cap_add=_capabilities(own, "add"),
        cap_drop=_capabilities(own, "drop"),
        seccomp=_profile(own.get("seccompProfile")) or pod.seccomp,
        # The order in which the kubelet applies them: the container's field, its annotation, then the pod's field.
        apparmor=_profile(own.get("appArmorProfile"))
        or _apparmor_annotation(dict(pod.apparmor_annotations).get(name))
        or _profile(shared.get("appArmorProfile")),
        selinux=_selinux(own.get("seLinuxOptions")) or pod.selinux,
        proc_mount=own.string_of("procMount"),
        windows_host_process=_first(own.at("windowsOptions", "hostProcess").boolean(), pod.windows_host_process),
        network_mode="host" if pod.host_network else None,
        pid_mode="host" if pod.host_pid else None,
        ipc_mode="host" if pod.host_ipc else None,
        userns_mode="host" if pod.host_users else None,
        sysctls=tuple(
            (each.string_of("name") or "", each.string_of("value") or "") for each in shared.get("sysctls").items()
        ),
        memory=_bytes(limits.get("memory")),
        memory_reservation=_bytes(requests.get("memory")),
        cpus=_cores(limits.get("cpu")),
        cpu_reservation=_cores(requests.get("cpu")),
        restart=spec.string_of("restartPolicy"),
        mounts=mounts,
        ports=tuple(_port(each) for each in node.get("ports").items()),
        devices=devices,
        environment=tuple(_environment(node)),
        command=node.get("command").strings() or None,
        arguments=node.get("args").strings() or None,
        healthcheck=True if node.get("livenessProbe").value or node.get("readinessProbe").value else None,
        probes=tuple(_probes(node)),
        replicas=object_.at("spec", "replicas").integer() if item.kind != "Pod" else None,
        update=_update(item),
        disruption_budget=covered,
        image_pull_policy=node.string_of("imagePullPolicy"),
        pod=pod,
        origin=NodeOrigin(node, _PATHS, {"pod": spec, "object": item.node}),
    )


def _resources(own: Node, spec: Node, key: str) -> Node:
    """Return the limits or requests of a container. What it does not set, the whole pod can (KEP-2837).

    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#pod-level-resource-specification
    """
    mine, shared = own.at("resources", key).mapping(), spec.at("resources", key).mapping()
    if shared.value is None:
        return mine
    return Node.of(mine.document, mine.pointer, dict([*shared.members(), *mine.members()]))


def _first(*values: bool | None) -> bool | None:
    return next((value for value in values if value is not None), None)


def _merged_boolean(own: Node, shared: Node, key: str) -> bool | None:
    return _first(own.get(key).boolean(), shared.get(key).boolean())


def _merged_integer(own: Node, shared: Node, key: str) -> int | None:
    return next((v for v in (own.get(key).integer(), shared.get(key).integer()) if v is not None), None)


def _capabilities(context: Node, key: str) -> tuple[str, ...]:
    return context.at("capabilities", key).strings()  # unchanged: Kubernetes compares names exactly


def _apparmor_annotation(profile: str | None) -> str | None:
    """Return an AppArmor annotation (before Kubernetes 1.30) as the value of the field that replaced it."""
    if profile is None:
        return None
    if profile.startswith("localhost/"):
        return "Localhost/" + profile.removeprefix("localhost/")
    return {"runtime/default": "RuntimeDefault", "unconfined": "Unconfined"}.get(profile, profile)


def _bytes(node: Node) -> int | None:
    text = node.text()
    found = quantity(text) if text is not None else None
    if text is not None and found is None:
        raise node.error(f"is not a quantity: {text[:80]!r}")
    return int(found) if found is not None else None


def _cores(node: Node) -> float | None:
    text = node.text()
    found = quantity(text) if text is not None else None
    if text is not None and found is None:
        raise node.error(f"is not a quantity: {text[:80]!r}")
    return float(found) if found is not None else None


def _mounts(node: Node, volumes: Mapping[str, Node]) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    mounts = tuple(_mount(each, volumes.get(each.string_of("name") or "")) for each in node.get("volumeMounts").items())
    return mounts, tuple(each.string_of("devicePath") or "" for each in node.get("volumeDevices").items())


def _mount(node: Node, volume: Node | None) -> Mount:
    target = node.string_of("mountPath") or ""
    propagation = _PROPAGATION.get(node.string_of("mountPropagation") or "", "")
    read_only = bool(node.boolean_of("readOnly"))
    if volume is None:  # defined by a StatefulSet's volumeClaimTemplates
        return Mount("volume", target, node.string_of("name") or "", read_only, propagation, "persistentVolumeClaim")
    found = _volume(volume)
    source = volume.get(found.type)
    if found.type == "hostPath":
        return Mount("bind", target, found.path, read_only, propagation, "hostPath")
    if found.type == "emptyDir":
        kind = "tmpfs" if source.string_of("medium") == "Memory" else "volume"
        return Mount(kind, target, "", read_only, propagation, "emptyDir", _bytes(source.get("sizeLimit")))
    if found.type in _READ_ONLY_VOLUMES:
        return Mount(_READ_ONLY_VOLUMES[found.type], target, found.name, True, propagation, found.type)
    claim = source.string_of("claimName") if found.type == "persistentVolumeClaim" else None
    read_only = read_only or bool(source.boolean_of("readOnly"))
    if found.type == "image":
        return Mount("image", target, source.string_of("reference") or "", True, propagation, "image")
    return Mount("volume", target, claim or found.name, read_only, propagation, found.type)


def _port(node: Node) -> PortBinding:
    return PortBinding(
        node.integer_of("containerPort") or 0,
        node.integer_of("hostPort") or None,
        node.string_of("hostIP") or "",
        (node.string_of("protocol") or "TCP").lower(),
    )


def _environment(node: Node) -> Iterator[Variable]:
    origins = {"secretKeyRef": "secret", "configMapKeyRef": "config"}
    for each in node.get("env").items():
        name = each.string_of("name") or ""
        source = next((key for key, value in each.get("valueFrom").members() if value.value is not None), "")
        yield Variable(name, each.string_of("value") or "", origins.get(source, "field" if source else "literal"))
    for each in node.get("envFrom").items():
        origin = "secret" if each.get("secretRef").value is not None else "config"
        yield Variable(f"{each.get('prefix').string() or ''}*", "", origin)


def _probes(node: Node) -> Iterator[Probe]:
    places = [(kind, node.get(f"{kind}Probe")) for kind in ("liveness", "readiness", "startup")]
    places += [(kind, node.at("lifecycle", kind)) for kind in ("postStart", "preStop")]
    for kind, place in places:
        if place.mapping().value is not None:
            host = place.at("httpGet", "host").string() or place.at("tcpSocket", "host").string() or ""
            sent = [
                f"{each.get('name').string() or ''}: {each.get('value').string() or ''}"
                for each in place.at("httpGet", "httpHeaders").items()
            ]
            yield Probe(kind, host, place.at("exec", "command").strings(), tuple(sent))


def _update(item: KubernetesObject) -> UpdateStrategy | None:
    spec = item.node.get("spec")
    if item.kind not in ("Deployment", "StatefulSet", "DaemonSet"):
        return None
    strategy = spec.get("strategy" if item.kind == "Deployment" else "updateStrategy").mapping()
    rolling = strategy.get("rollingUpdate").mapping()
    return UpdateStrategy(
        type=strategy.string_of("type") or "RollingUpdate",
        max_unavailable=rolling.get("maxUnavailable").text() or "",
        max_surge=rolling.get("maxSurge").text() or "",
        min_ready_seconds=spec.integer_of("minReadySeconds"),
    )
