"""Kubernetes manifests for the admission webhook, to be used with ``kubectl apply``.

Labels of a namespace set its environment and mode. An AdmissionReview does not contain them, so there is one webhook
for each environment and mode: its namespaceSelector matches the labels and its path contains the two values.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import yaml

from scanner.addresses import web_address
from scanner.config import Secret
from scanner.errors import UsageError
from scanner.services.admissions import Mode

MODE_LABEL, ENVIRONMENT_LABEL = "dockwarden/mode", "dockwarden/environment"
_NAME = "dockwarden"
_PORT = 8443
_CLIENT_CA, _CLIENT_CA_DIRECTORY = f"{_NAME}-client-ca", "/etc/dockwarden/client-ca"
_LABELS = {"app.kubernetes.io/name": _NAME}
# Resources that contain a pod or a pod template, by API group. Subresource ``scale`` changes no template.
_RESOURCES = {
    "": ["pods", "pods/ephemeralcontainers", "podtemplates", "replicationcontrollers"],
    "apps": ["deployments", "statefulsets", "daemonsets", "replicasets"],
    "batch": ["jobs", "cronjobs"],
}
# Most updates of pods change only status or finalizers and start no container: the API server skips the webhook.
_STARTS_SOMETHING = "request.operation == 'CREATE' || !has(object.spec) || object.spec != oldObject.spec"
_HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class Cluster:
    """The parameters of the manifests.

    A server that runs in the cluster needs ``certificate`` and ``key``, or ``issuer``. A server outside of it needs
    ``url`` and ``token``.
    """

    token: Secret = Secret("")
    url: str = ""  # of a server outside of the cluster; empty: the server runs in the cluster
    ca: bytes = b""  # PEM, the CA of the server's certificate; empty: a public CA or `certificate`
    image: str = ""
    namespace: str = _NAME
    environments: Sequence[str] = ()  # values of the environment label that have webhooks of their own
    exempt: Sequence[str] = ()  # namespaces without the webhook
    failure_policy: str = "Fail"  # Fail or Ignore: the API server's reaction if the webhook does not answer
    timeout: int = 5  # seconds; the API server allows 1 to 30
    certificate: bytes = b""  # PEM; also the caBundle of a server in the cluster
    key: bytes = b""  # PEM
    issuer: str = ""  # cert-manager ClusterIssuer
    settings_secret: str = ""  # Secret with DOCKWARDEN_ settings that two replicas share; empty: one replica, SQLite
    client_names: Sequence[str] = ()  # of the API servers' client certificates, which are used instead of a token
    client_ca: bytes = b""  # PEM, the CA of these certificates; for a server in the cluster
    pin_tags: bool = False  # also a MutatingWebhookConfiguration


def manifests(cluster: Cluster) -> str:
    """Return the manifests as YAML. Raises UsageError for parameters that contradict each other."""
    return yaml.safe_dump_all(_documents(cluster), sort_keys=False, explicit_start=True, width=120)


def _documents(cluster: Cluster) -> list[dict[str, Any]]:
    if cluster.url:
        hint = "the API server calls webhooks over https only: --url https://dockwarden.example.com"
        web_address(cluster.url, "--url", schemes=("https",), hint=hint)
        if not cluster.token and not cluster.client_names:
            raise UsageError(
                "the webhook needs a token, or --client-name for a client certificate of the API server",
                hint="create a token: dockwarden token create NAME --scope admission",
            )
        return [*_configurations(cluster)]
    if bool(cluster.certificate) != bool(cluster.key):
        raise UsageError("--certificate and --key go together")
    if not cluster.certificate and not cluster.issuer:
        raise UsageError(
            "the API server calls webhooks over https only: the server needs a certificate",
            hint=f"use --cert-manager ISSUER, or --certificate and --key for {_host(cluster)}",
        )
    if bool(cluster.client_names) != bool(cluster.client_ca):
        raise UsageError("a server in the cluster needs both --client-ca and --client-name")
    server = [*_server(cluster)]
    return [*server, *_configurations(cluster)] if cluster.token or cluster.client_names else server


def _host(cluster: Cluster) -> str:
    return f"{_NAME}.{cluster.namespace}.svc"


def _meta(cluster: Cluster, name: str = _NAME, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": cluster.namespace, "labels": dict(_LABELS)} | more


def _server(cluster: Cluster) -> Iterator[dict[str, Any]]:
    yield {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": cluster.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(cluster)}
    yield account | {"automountServiceAccountToken": False}  # the server never calls the API server
    yield _certificate(cluster)
    if cluster.client_ca:
        authorities = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(cluster, _CLIENT_CA)}
        yield authorities | {"data": {"ca.crt": cluster.client_ca.decode("ascii", "replace")}}
    if not cluster.settings_secret:
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": _meta(cluster),
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
        }
    yield _deployment(cluster)
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(cluster),
        "spec": {"selector": dict(_LABELS), "ports": [{"name": "https", "port": 443, "targetPort": "https"}]},
    }
    yield {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(cluster),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(_LABELS)}},
    }


def _certificate(cluster: Cluster) -> dict[str, Any]:
    if cluster.certificate:
        files = {"tls.crt": cluster.certificate, "tls.key": cluster.key}
        data = {name: base64.b64encode(value).decode() for name, value in files.items()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": _meta(cluster, f"{_NAME}-tls")}
        return secret | {"type": "kubernetes.io/tls", "data": data}
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": _meta(cluster, f"{_NAME}-tls"),
        "spec": {
            "secretName": f"{_NAME}-tls",
            "dnsNames": [_host(cluster)],
            "issuerRef": {"kind": "ClusterIssuer", "name": cluster.issuer},
        },
    }


def _deployment(cluster: Cluster) -> dict[str, Any]:
    shared = cluster.settings_secret
    home = {"emptyDir": {}} if shared else {"persistentVolumeClaim": {"claimName": _NAME}}
    variables = {
        "DOCKWARDEN_HOME": "/var/lib/dockwarden",
        "DOCKWARDEN_TLS_CERTIFICATE": "/etc/dockwarden/tls/tls.crt",
        "DOCKWARDEN_TLS_KEY": "/etc/dockwarden/tls/tls.key",
    }
    if cluster.client_ca:
        variables["DOCKWARDEN_ADMISSION_CLIENT_CA"] = f"{_CLIENT_CA_DIRECTORY}/ca.crt"
        variables["DOCKWARDEN_ADMISSION_CLIENT_NAMES"] = ",".join(cluster.client_names)
    mounts: list[dict[str, Any]] = [
        {"name": "home", "mountPath": "/var/lib/dockwarden"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "tls", "mountPath": "/etc/dockwarden/tls", "readOnly": True},
    ]
    probe = {"httpGet": {"path": "/healthz", "port": "https", "scheme": "HTTPS"}}
    container = {
        "name": "server",
        "image": cluster.image,
        "args": ["serve", "--host", "0.0.0.0", "--port", str(_PORT)],  # noqa: S104  the pod's network only
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "ports": [{"name": "https", "containerPort": _PORT}],
        "livenessProbe": probe | {"periodSeconds": 10},
        "readinessProbe": probe | {"periodSeconds": 5},
        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
        "securityContext": dict(_HARDENED),
        "volumeMounts": mounts,
    }
    volumes: list[dict[str, Any]] = [
        {"name": "home"} | home,
        {"name": "tmp", "emptyDir": {}},
        {"name": "tls", "secret": {"secretName": f"{_NAME}-tls"}},
    ]
    if cluster.client_ca:
        mounts.append({"name": "client-ca", "mountPath": _CLIENT_CA_DIRECTORY, "readOnly": True})
        volumes.append({"name": "client-ca", "configMap": {"name": _CLIENT_CA}})
    if shared:
        container["envFrom"] = [{"secretRef": {"name": shared}}]
    pod = {
        "serviceAccountName": _NAME,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(cluster),
        "spec": {
            "replicas": 2 if shared else 1,
            # A rolling update would briefly run two servers on one volume, which both write one SQLite file.
            "strategy": {"type": "RollingUpdate" if shared else "Recreate"},
            "selector": {"matchLabels": dict(_LABELS)},
            "template": {"metadata": {"labels": dict(_LABELS)}, "spec": pod},
        },
    }


def _configurations(cluster: Cluster) -> Iterator[dict[str, Any]]:
    metadata: dict[str, Any] = {"name": _NAME, "labels": dict(_LABELS)}
    if not cluster.url and not cluster.certificate:
        metadata["annotations"] = {"cert-manager.io/inject-ca-from": f"{cluster.namespace}/{_NAME}-tls"}
    environments, version = ("", *cluster.environments), "admissionregistration.k8s.io/v1"
    yield {
        "apiVersion": version,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": metadata,
        "webhooks": [_webhook(cluster, mode, name) for name in environments for mode in Mode],
    }
    if cluster.pin_tags:
        yield {
            "apiVersion": version,
            "kind": "MutatingWebhookConfiguration",
            "metadata": metadata,
            "webhooks": [_pinning_webhook(cluster, name) for name in environments],
        }


def _pinning_webhook(cluster: Cluster, environment: str) -> dict[str, Any]:
    """The webhook that pins tags of new Pods: those of controllers, whose own objects keep what people wrote."""
    path = f"/adapters/kubernetes/pin/{_caller(cluster)}"
    path += f"/{environment}" if environment else ""
    modes = [each for each in _selectors(cluster, Mode.ENFORCE, environment) if each["key"] != MODE_LABEL]
    return _webhook(cluster, Mode.ENFORCE, environment) | {
        "name": f"pin.{environment or 'any'}.admission.dockwarden",
        "clientConfig": _client(cluster, path),
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }
        ],
        "namespaceSelector": {"matchExpressions": modes},
        "reinvocationPolicy": "IfNeeded",  # another webhook may add a container with a tag
    }


def _caller(cluster: Cluster) -> str:
    """How the API server authenticates: the token, or the word that stands for its client certificate."""
    return "certificate" if cluster.client_names else quote(cluster.token.reveal(), safe="")


def _client(cluster: Cluster, path: str) -> dict[str, Any]:
    client: dict[str, Any] = {"url": cluster.url.rstrip("/") + path}
    if not cluster.url:
        client = {"service": {"name": _NAME, "namespace": cluster.namespace, "path": path, "port": 443}}
    if authority := cluster.ca or (cluster.certificate if not cluster.url else b""):
        client["caBundle"] = base64.b64encode(authority).decode()
    return client


def _webhook(cluster: Cluster, mode: Mode, environment: str) -> dict[str, Any]:
    path = f"/adapters/kubernetes/admit/{_caller(cluster)}/{mode}"
    path += f"/{environment}" if environment else ""
    return {
        "name": f"{mode}.{environment or 'any'}.admission.dockwarden",
        "admissionReviewVersions": ["v1"],
        "clientConfig": _client(cluster, path),
        "rules": [
            {
                "apiGroups": [group],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": list(resources),
                "scope": "Namespaced",
            }
            for group, resources in _RESOURCES.items()
        ],
        "namespaceSelector": {"matchExpressions": list(_selectors(cluster, mode, environment))},
        "matchConditions": [{"name": "starts-something", "expression": _STARTS_SOMETHING}],
        "matchPolicy": "Equivalent",
        "failurePolicy": cluster.failure_policy,
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": cluster.timeout,
    }


def _selectors(cluster: Cluster, mode: Mode, environment: str) -> Iterator[dict[str, Any]]:
    exempt = sorted({*cluster.exempt, cluster.namespace})  # a server that needs its own approval could not restart
    yield {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": exempt}
    if mode is Mode.ENFORCE:  # the default: also namespaces without the label or with a misspelt value
        yield {"key": MODE_LABEL, "operator": "NotIn", "values": [str(Mode.WARN), str(Mode.AUDIT)]}
    else:
        yield {"key": MODE_LABEL, "operator": "In", "values": [str(mode)]}
    if environment:
        yield {"key": ENVIRONMENT_LABEL, "operator": "In", "values": [environment]}
    elif cluster.environments:
        yield {"key": ENVIRONMENT_LABEL, "operator": "NotIn", "values": list(cluster.environments)}
