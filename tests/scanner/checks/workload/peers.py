"""Kubernetes manifests of which each says one thing differently: what two scanners are compared on."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

GOOD: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "replicas": 3,
        "minReadySeconds": 10,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 20001,
                    "runAsGroup": 20001,
                    "fsGroup": 20001,
                    "supplementalGroups": [20001],
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "app",
                        "image": "registry.example.com/shop/web@sha256:" + "ab" * 32,
                        "imagePullPolicy": "IfNotPresent",
                        "resources": {
                            "limits": {"cpu": "1", "memory": "128Mi"},
                            "requests": {"cpu": "100m", "memory": "64Mi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "privileged": False,
                            "capabilities": {"drop": ["ALL"]},
                            "runAsUser": 20001,
                            "runAsGroup": 20001,
                        },
                        "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
                        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
                        "ports": [{"containerPort": 8080}],
                    }
                ],
            },
        },
    },
}
_GONE = object()
_CONTAINER = "spec.template.spec.containers.0."
_POD = "spec.template.spec."
_SECURITY = _CONTAINER + "securityContext."
_RESOURCES = _CONTAINER + "resources."


def _volume(**source: Any) -> dict[str, Any]:
    return {
        _POD + "volumes": [{"name": "data", **source}],
        _CONTAINER + "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }


def _environment(**each: Any) -> dict[str, Any]:
    return {_CONTAINER + "env": [each]}


# What each manifest says differently, by its name: paths, and the values there.
_CHANGES: dict[str, dict[str, Any]] = {
    "good": {},
    "no-contexts": {_SECURITY[:-1]: _GONE, _POD + "securityContext": _GONE},
    "no-container-context": {_SECURITY[:-1]: _GONE},
    "no-pod-context": {_POD + "securityContext": _GONE},
    "escalation-unset": {_SECURITY + "allowPrivilegeEscalation": _GONE},
    "escalation-true": {_SECURITY + "allowPrivilegeEscalation": True},
    "privileged": {_SECURITY + "privileged": True, _SECURITY + "allowPrivilegeEscalation": _GONE},
    "drop-nothing": {_SECURITY + "capabilities": _GONE},
    "drop-one": {_SECURITY + "capabilities": {"drop": ["NET_RAW"]}},
    "drop-all-lower-case": {_SECURITY + "capabilities": {"drop": ["all"]}},
    "add-net-bind-service": {_SECURITY + "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}},
    "add-sys-admin": {_SECURITY + "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
    "add-net-raw": {_SECURITY + "capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}},
    "add-sys-module": {_SECURITY + "capabilities": {"drop": ["ALL"], "add": ["SYS_MODULE"]}},
    "add-chown": {_SECURITY + "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}},
    "add-sys-time": {_SECURITY + "capabilities": {"drop": ["ALL"], "add": ["SYS_TIME"]}},
    "add-all": {_SECURITY + "capabilities": {"drop": ["ALL"], "add": ["ALL"]}},
    "add-cap-prefix": {_SECURITY + "capabilities": {"drop": ["ALL"], "add": ["CAP_SYS_ADMIN"]}},
    "writable-root": {_SECURITY + "readOnlyRootFilesystem": False},
    "writable-root-unset": {_SECURITY + "readOnlyRootFilesystem": _GONE},
    "root-user": {_SECURITY + "runAsUser": 0, _POD + "securityContext.runAsNonRoot": False},
    "root-user-of-pod": {
        _SECURITY + "runAsUser": _GONE,
        _POD + "securityContext.runAsUser": 0,
        _POD + "securityContext.runAsNonRoot": _GONE,
    },
    "user-unset": {
        _SECURITY + "runAsUser": _GONE,
        _POD + "securityContext.runAsUser": _GONE,
        _POD + "securityContext.runAsNonRoot": _GONE,
    },
    "non-root-unset": {_POD + "securityContext.runAsNonRoot": _GONE},
    "non-root-of-container": {
        _POD + "securityContext.runAsNonRoot": _GONE,
        _SECURITY + "runAsNonRoot": True,
    },
    "low-user": {_SECURITY + "runAsUser": 1000},
    "low-group": {_SECURITY + "runAsGroup": 1000},
    "root-group": {_SECURITY + "runAsGroup": 0},
    "group-unset": {_SECURITY + "runAsGroup": _GONE, _POD + "securityContext.runAsGroup": _GONE},
    "supplemental-root-group": {_POD + "securityContext.supplementalGroups": [0]},
    "fs-group-zero": {_POD + "securityContext.fsGroup": 0},
    "seccomp-unset": {_POD + "securityContext.seccompProfile": _GONE},
    "seccomp-unconfined": {_POD + "securityContext.seccompProfile": {"type": "Unconfined"}},
    "seccomp-unconfined-of-container": {_SECURITY + "seccompProfile": {"type": "Unconfined"}},
    "seccomp-localhost": {
        _POD + "securityContext.seccompProfile": {"type": "Localhost", "localhostProfile": "audit.json"}
    },
    "apparmor-unconfined": {_SECURITY + "appArmorProfile": {"type": "Unconfined"}},
    "apparmor-unconfined-annotation": {
        "spec.template.metadata.annotations": {"container.apparmor.security.beta.kubernetes.io/app": "unconfined"}
    },
    "selinux-type": {_SECURITY + "seLinuxOptions": {"type": "spc_t"}},
    "selinux-user": {_SECURITY + "seLinuxOptions": {"user": "sys_u"}},
    "selinux-level": {_SECURITY + "seLinuxOptions": {"level": "s0:c1,c2"}},
    "proc-mount": {_SECURITY + "procMount": "Unmasked"},
    "windows-host-process": {_POD + "securityContext.windowsOptions": {"hostProcess": True}},
    "host-network": {_POD + "hostNetwork": True},
    "host-pid": {_POD + "hostPID": True},
    "host-ipc": {_POD + "hostIPC": True},
    "host-port": {_CONTAINER + "ports": [{"containerPort": 8080, "hostPort": 8080}]},
    "privileged-host-port": {_CONTAINER + "ports": [{"containerPort": 80, "hostPort": 80}]},
    "privileged-port": {_CONTAINER + "ports": [{"containerPort": 80}]},
    "sysctl-safe": {_POD + "securityContext.sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]},
    "sysctl-unsafe": {_POD + "securityContext.sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
    "sysctl-new": {_POD + "securityContext.sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]},
    "host-path": _volume(hostPath={"path": "/srv/data"}),
    "host-path-etc": _volume(hostPath={"path": "/etc"}),
    "docker-socket": _volume(hostPath={"path": "/var/run/docker.sock"}),
    "host-path-not-mounted": {_POD + "volumes": [{"name": "data", "hostPath": {"path": "/srv"}}]},
    "nfs-volume": _volume(nfs={"server": "nfs.example.com", "path": "/"}),
    "empty-dir": _volume(emptyDir={"sizeLimit": "10Mi"}),
    "claim": _volume(persistentVolumeClaim={"claimName": "data"}),
    "ephemeral-volume": _volume(ephemeral={"volumeClaimTemplate": {"spec": {}}}),
    "image-volume": _volume(image={"reference": "registry.example.com/models:1"}),
    "no-resources": {_RESOURCES[:-1]: _GONE},
    "no-limits": {_RESOURCES + "limits": _GONE},
    "no-cpu-limit": {_RESOURCES + "limits.cpu": _GONE},
    "no-memory-limit": {_RESOURCES + "limits.memory": _GONE},
    "no-requests": {_RESOURCES + "requests": _GONE},
    "no-cpu-request": {_RESOURCES + "requests.cpu": _GONE},
    "no-memory-request": {_RESOURCES + "requests.memory": _GONE},
    "latest": {_CONTAINER + "image": "registry.example.com/shop/web:latest"},
    "no-tag": {_CONTAINER + "image": "registry.example.com/shop/web"},
    "tag": {_CONTAINER + "image": "registry.example.com/shop/web:1.4.1"},
    "public-registry": {_CONTAINER + "image": "docker.io/library/nginx:1.27.0"},
    "default-namespace": {"metadata.namespace": "default"},
    "no-namespace": {"metadata.namespace": _GONE},
    "kube-system": {"metadata.namespace": "kube-system"},
    "token-unset": {_POD + "automountServiceAccountToken": _GONE},
    "token-mounted": {_POD + "automountServiceAccountToken": True},
    "service-account-path": {
        _POD + "volumes": [{"name": "token", "projected": {"sources": []}}],
        _CONTAINER + "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    },
    "secret-value": _environment(name="DB_PASSWORD", value="not-a-real-one"),
    "secret-reference": _environment(
        name="DB_PASSWORD", valueFrom={"secretKeyRef": {"name": "database", "key": "password"}}
    ),
    "tiller": {_CONTAINER + "image": "registry.example.com/tiller:1", "metadata.name": "tiller-deploy"},
    "etc-hosts": {_CONTAINER + "command": ["sh", "-c", "echo 127.0.0.1 x >> /etc/hosts"]},
    "host-aliases": {_POD + "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["x"]}]},
    "init-container": {
        _POD + "initContainers": [{"name": "set-up", "image": "registry.example.com/shop/set-up:latest"}]
    },
    "ephemeral-container": {
        _POD + "ephemeralContainers": [{"name": "debug", "image": "registry.example.com/shop/debug:latest"}]
    },
}

# Objects without a pod: Trivy tells the rules about them only where it sees one.
OTHERS: dict[str, dict[str, Any]] = {
    "config-map": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"password": "none"}},
    "service": {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}},
    "role": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "a"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    },
    "role-binding": {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "a"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "x", "apiGroup": "rbac.authorization.k8s.io"}],
    },
    "constraint": {
        "apiVersion": "constraints.gatekeeper.sh/v1beta1",
        "kind": "K8sAllowedRepos",
        "metadata": {"name": "a"},
        "spec": {"parameters": {"repos": ["registry.example.com/"]}},
    },
}


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and object of each manifest: a good Deployment with one change, and the same pods in other kinds."""
    for name, changes in _CHANGES.items():
        made = copy.deepcopy(GOOD)
        for path, value in changes.items():
            _set(made, path, value)
        yield name, made
    worst = copy.deepcopy(GOOD)
    for name in ("no-contexts", "no-resources", "latest", "host-network", "docker-socket", "no-namespace"):
        for path, value in _CHANGES[name].items():
            _set(worst, path, value)
    template = worst["spec"]["template"]
    for kind, version in (("DaemonSet", "apps/v1"), ("StatefulSet", "apps/v1"), ("Job", "batch/v1")):
        yield f"worst-{kind.lower()}", {**worst, "apiVersion": version, "kind": kind, "spec": {"template": template}}
    job = {"jobTemplate": {"spec": {"template": template}}, "schedule": "@daily"}
    yield "worst-cronjob", {**worst, "apiVersion": "batch/v1", "kind": "CronJob", "spec": job}
    yield "worst-pod", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": template["spec"]}


def text(manifest: dict[str, Any]) -> str:
    """A manifest as JSON, which both scanners read as YAML."""
    return json.dumps(manifest, indent=2)


def _set(value: Any, path: str, new: Any) -> None:
    *steps, last = path.split(".") if "labels" not in path else [path]
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value.setdefault(step, {})
    if new is _GONE:
        value.pop(last, None)
    else:
        value[last] = copy.deepcopy(new)
