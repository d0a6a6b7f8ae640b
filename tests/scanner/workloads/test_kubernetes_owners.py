"""Objects of a running cluster: a controller and its pods are one workload, and the pods tell what runs."""

from __future__ import annotations

import json
from typing import Any

from scanner import catalog
from scanner.model.workload import Workload

OLD, NEW = ("sha256:" + each * 32 for each in ("ab", "cd"))
IMAGE = "registry.example.com/shop/web:1"


def pod_spec(image: str = IMAGE, *more: str) -> dict[str, Any]:
    return {"containers": [{"name": "app", "image": image}, *({"name": name, "image": f"a/{name}:1"} for name in more)]}


def deployment(image: str = IMAGE) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "shop"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": template(image)}


def template(image: str) -> dict[str, Any]:
    return {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec(image)}}


def owned(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": True}]


def pod(number: int, digest: str = OLD, *, owner: str = "web-6d4c", kind: str = "ReplicaSet", **more: Any) -> Any:
    metadata: dict[str, Any] = {"name": f"web-6d4c-{number}", "namespace": "shop"}
    metadata["labels"] = {"app": "web", "pod-template-hash": "6d4c"}
    if owner:
        metadata["ownerReferences"] = owned(kind, owner)
    running = {"running": {"startedAt": f"2026-01-0{number}T00:00:00Z"}}
    image_id = f"docker-pullable://registry.example.com/shop/web@{digest}"
    status = {"phase": "Running", "containerStatuses": [{"name": "app", "imageID": image_id, "state": running}]}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(), "status": status}
    return {**made, **more}


def read(*items: dict[str, Any]) -> dict[str, Workload]:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)}, indent=1)
    found = catalog.workload_sources()["kubernetes"].parse(text, "f")
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


def test_pods_are_merged_into_their_deployment_with_the_digest_in_fact_running() -> None:
    (found,) = read(deployment(), pod(1), pod(2)).values()
    assert (found.name, found.kind, found.unit) == ("shop/Deployment/web · app", "Deployment", "web")
    assert found.running_digest == f"registry.example.com/shop/web@{OLD}"
    assert found.started_at == "2026-01-02T00:00:00Z"
    assert found.image == IMAGE


def test_the_replica_set_between_them_is_no_workload_of_its_own() -> None:
    metadata = {"name": "web-6d4c", "namespace": "shop", "ownerReferences": owned("Deployment", "web")}
    between = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": template(IMAGE)}
    assert list(read(deployment(), between, pod(1))) == ["shop/Deployment/web · app"]


def test_two_digests_of_one_tag_are_both_told() -> None:
    found = read(deployment(), pod(1, OLD), pod(2, NEW))
    assert [each.running_digest.partition("@")[2] for each in found.values()] == [NEW, OLD]
    assert all(each.unit == "web" and each.kind == "Deployment" for each in found.values())


def test_a_pod_of_the_former_image_still_runs() -> None:
    found = read(deployment("registry.example.com/shop/web:2"), pod(1))
    assert {each.image for each in found.values()} == {IMAGE, "registry.example.com/shop/web:2"}


def test_an_injected_sidecar_runs_as_well() -> None:
    found = read(deployment(), pod(1, spec=pod_spec(IMAGE, "proxy")), pod(2, spec=pod_spec(IMAGE, "proxy")))
    assert list(found) == ["shop/Deployment/web · app", "shop/Deployment/web · proxy"]


def test_the_pods_of_a_controller_that_was_not_read_are_one_workload() -> None:
    found = read(pod(1, owner="game", kind="Fleet"), pod(2, owner="game", kind="Fleet"))
    assert list(found) == ["shop/Fleet/game · app"]


def test_a_job_belongs_to_its_cron_job() -> None:
    metadata = {"name": "report", "namespace": "shop"}
    spec = {"schedule": "@daily", "jobTemplate": {"spec": {"template": {"spec": pod_spec()}}}}
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}
    found = read(cron, pod(1, owner="report-29012345", kind="Job"))
    assert list(found) == ["shop/CronJob/report · app"]
    assert found["shop/CronJob/report · app"].running_digest


def test_a_pod_alone_keeps_its_name_and_an_image_without_a_registry_has_no_digest() -> None:
    status = {"phase": "Running", "containerStatuses": [{"name": "app", "imageID": f"docker://{OLD}"}]}
    (found,) = read(pod(1, owner="", status=status)).values()
    assert (found.name, found.running_digest) == ("shop/Pod/web-6d4c-1 · app", "")


def test_owners_in_a_circle_end() -> None:
    metadata = {"name": "a", "namespace": "shop", "ownerReferences": owned("ReplicaSet", "a")}
    circle = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": template(IMAGE)}
    assert list(read(circle)) == ["shop/ReplicaSet/a · app"]
