"""Objects and reviews as an API server sends them."""

from __future__ import annotations

from typing import Any

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"
# What the default checks of workloads have nothing against.
HARDENED = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(image: str, name: str = "app", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, "securityContext": HARDENED, **more}


def pod(*images: str, name: str = "web", namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    containers = [container(image, f"app{number or ''}") for number, image in enumerate(images)]
    metadata = {"name": name, "namespace": namespace, "labels": {"app": "web"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": containers, "automountServiceAccountToken": False, **spec},
    }


def deployment(*images: str, name: str = "web", replicas: int = 1, namespace: str = "shop") -> dict[str, Any]:
    inner = pod(*images, namespace=namespace)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": inner["spec"]},
        },
    }


def review(value: dict[str, Any] | None, operation: str = "CREATE", **more: Any) -> dict[str, Any]:
    """The review of an object. ``old`` is the object before; other members replace those of the request."""
    metadata = (value or {}).get("metadata", {})
    request = {
        "uid": UID,
        "kind": {"group": "", "version": "v1", "kind": (value or {}).get("kind", "Pod")},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "name": metadata.get("name", ""),
        "namespace": metadata.get("namespace", "shop"),
        "operation": operation,
        "userInfo": {"username": "kim@example.com", "groups": ["system:authenticated"]},
        "object": value,
        "oldObject": more.pop("old", None),
        "dryRun": False,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request | more}
