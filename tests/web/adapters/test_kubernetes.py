"""Admission: what is denied does not start, what is not known is denied, and no review is answered with an error."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from scanner import queue
from scanner.config import Settings
from scanner.errors import RemoteError
from scanner.model.finding import Severity
from scanner.services import admissions as use_cases
from scanner.store import admissions, audit, gate, policies, scans
from scanner.store.session import Database
from tests.kubernetes_objects import UID, container, deployment, pod, review
from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker
from web import create_app
from web.tls import CLIENT_CERTIFICATE

CLEAN = make.report("clean", packages=[make.package(1)])
BAD = make.report(
    "bad",
    packages=[make.package(1)],
    vulnerabilities=[make.vulnerability(number, make.package(1), severity=Severity.CRITICAL) for number in range(1, 8)],
)
GOOD_IMAGE = f"{make.REPOSITORY}@{CLEAN.digest}"
BAD_IMAGE = f"{make.REPOSITORY}@{BAD.digest}"
NEW_IMAGE = f"{make.REPOSITORY}@sha256:{'9' * 64}"
PATH = "/adapters/kubernetes/admit"
POLICY = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: cluster}
advisories: {max_age: 5200w}
rules:
  - {id: no-criticals, vulnerability: {severity: [critical]}, action: deny}
  - {id: not-privileged, check: privileged-container, action: deny}
  - {id: limits, check: memory-limit, action: warn}
"""
ENVIRONMENT = (
    POLICY.replace("{name: cluster}", "{name: strict}")
    .replace("advisories", "match: {environments: [production]}\nadvisories")
    .replace("action: warn", "action: deny")
)
LIMITED = {"resources": {"limits": {"memory": "64Mi", "cpu": "1"}}}


@pytest.fixture(autouse=True)
def in_force(database: Database) -> None:
    with database.session() as session:
        policies.put(session, "cluster", POLICY, "test")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, admission_wait_seconds=0.0, public_url="https://dockwarden.example.com")


@pytest.fixture
def token(make_token: Callable[..., str]) -> str:
    return make_token("admission")


@pytest.fixture
def known(api: Api, worker: Worker) -> None:
    """An image that is allowed and one that is denied."""
    for found, image in ((CLEAN, GOOD_IMAGE), (BAD, BAD_IMAGE)):
        assert api("POST", "/scans", {"image": image}).status_code == 202
        worker.finish(found)


Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(app: OpenAPI, token: str) -> Ask:
    """The response to a review, which is always an answer."""
    client = app.test_client()

    def ask(document: Any, where: str = "", **more: Any) -> dict[str, Any]:
        body = {"data": document} if isinstance(document, bytes) else {"json": document}
        answer: TestResponse = client.post(f"{PATH}/{token}{where}", **body, **more)
        assert answer.status_code == 200, answer.text
        assert answer.json["kind"] == "AdmissionReview"
        response: dict[str, Any] = answer.json["response"]
        return response

    return ask


def limited(image: str, **more: Any) -> dict[str, Any]:
    return pod(image) | {"spec": {"containers": [container(image, **LIMITED, **more)]}}


@pytest.mark.usefixtures("known")
def test_an_image_that_the_node_has_already_is_known_by_digest_only(ask: Ask, worker: Worker) -> None:
    """``Never`` starts what somebody once pulled or loaded under the tag, whatever the registry has."""
    assert not ask(review(limited(f"{make.REPOSITORY}:1")))["allowed"]
    worker.finish(CLEAN)
    assert ask(review(limited(f"{make.REPOSITORY}:1")))["allowed"]
    answer = ask(review(limited(f"{make.REPOSITORY}:1", imagePullPolicy="Never")))
    assert "name the digest" in answer["status"]["message"]
    assert ask(review(limited(GOOD_IMAGE, imagePullPolicy="Never")))["allowed"]
    mounted = limited(GOOD_IMAGE)
    volume = {"reference": f"{make.REPOSITORY}:1", "pullPolicy": "Always"}
    mounted["spec"]["volumes"] = [{"name": "tool", "image": volume}]
    assert ask(review(mounted))["allowed"]
    volume["pullPolicy"] = "Never"
    assert "name the digest" in ask(review(mounted))["status"]["message"]
    volume["reference"] = GOOD_IMAGE
    assert ask(review(mounted))["allowed"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("kind", "subresource", "operation", "allowed"),
    [
        ("Pod", "resize", "UPDATE", False),
        ("Pod", "ephemeralcontainers", "UPDATE", False),
        ("Pod", "status", "UPDATE", True),
        ("Binding", "binding", "CREATE", True),
        ("Eviction", "eviction", "CREATE", True),
        ("PodExecOptions", "exec", "CONNECT", True),
        ("Rollout", "", "UPDATE", False),
        ("Rollout", "scale", "UPDATE", True),
    ],
)
def test_what_a_subresource_starts(ask: Ask, kind: str, subresource: str, operation: str, allowed: bool) -> None:
    """A change of a container with a denied image is judged; what starts no container is let through."""
    old = limited(BAD_IMAGE)
    new = limited(BAD_IMAGE, command=["/other"])
    if kind == "Rollout":
        old, new = ({"kind": kind, "metadata": {}, "spec": {"template": {"spec": each["spec"]}}} for each in (old, new))
    elif kind != "Pod":
        old, new = None, {"kind": kind, "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n"}}  # type: ignore[assignment]
    asked = review(new, operation, subResource=subresource, oldObject=old, kind={"kind": kind})
    assert ask(asked)["allowed"] is allowed


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    "image",
    [
        f" {GOOD_IMAGE}",
        f"{GOOD_IMAGE}\n",
        GOOD_IMAGE.replace("/", "\u2215"),
        GOOD_IMAGE.replace("sha256", "SHA256"),
        GOOD_IMAGE + "@" + BAD.digest,
        BAD_IMAGE.replace("@", ":good@"),
        GOOD_IMAGE[:-1],
        GOOD_IMAGE + "\u200b",
    ],
)
def test_a_name_that_is_nearly_that_of_an_allowed_image_is_denied(ask: Ask, image: str) -> None:
    assert ask(review(limited(image)))["allowed"] is False


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("image", "allowed"), [(GOOD_IMAGE, True), (BAD_IMAGE, False), (NEW_IMAGE, False), ("", False)]
)
def test_the_images_that_a_container_mounts_are_judged(ask: Ask, image: str, allowed: bool) -> None:
    """Its command can be a file of another image: ``volumes: [{image: {reference: …}}]`` (Kubernetes 1.31)."""
    mounted = limited(GOOD_IMAGE, volumeMounts=[{"name": "tool", "mountPath": "/tool"}], command=["/tool/run"])
    mounted["spec"]["volumes"] = [{"name": "tool", "image": {"reference": image}}]
    answer = ask(review(mounted))
    assert answer["allowed"] is allowed, answer
    if image == BAD_IMAGE:
        assert BAD_IMAGE in answer["status"]["message"]


TOKEN_VOLUME = {"name": "kube-api-access-x2x7z", "projected": {"sources": []}}


@pytest.mark.parametrize(
    "others",
    [
        [{"name": "kube-api-access-aaaaa", "hostPath": {"path": "/"}}, TOKEN_VOLUME],
        [{"name": "kube-api-access-aaaaa", "hostPath": {"path": "/"}}],
        [{"name": "kube-api-access", "emptyDir": {}}, {"name": "kube-api-access-aaaaa", "hostPath": {"path": "/"}}],
        [{"name": "kube-api-access-aaaaa", "hostPath": {"path": "/"}}, {"name": "kube-api-access", "emptyDir": {}}],
    ],
)
def test_a_volume_named_like_that_of_the_token_hides_no_other(others: list[dict[str, Any]]) -> None:
    """The API server gives the token's volume a random name, which is left out. A person can choose such names."""
    mounting = limited(GOOD_IMAGE, volumeMounts=[{"name": "kube-api-access-aaaaa", "mountPath": "/host"}])
    mounting["spec"]["volumes"] = others
    (workload,) = use_cases.containers_of(use_cases.parse_review(review(mounting)))
    assert [(mount.kind, mount.source) for mount in workload.mounts] == [("bind", "/")]


@pytest.mark.parametrize("many", [501, 20_000])
def test_an_object_that_would_take_longer_than_the_api_server_waits_is_denied(ask: Ask, many: int) -> None:
    """A hundred containers that share thousands of volumes took 11 s: with failurePolicy Ignore they were admitted."""
    large = limited(GOOD_IMAGE)
    large["spec"]["containers"] = [container(GOOD_IMAGE, name=f"c{number}") for number in range(100)]
    large["spec"]["volumes"] = [{"name": f"v{number}", "emptyDir": {}} for number in range(many)]
    answer = ask(review(large))
    assert answer["allowed"] is False
    assert "more than 500 volumes" in answer["status"]["message"]


def test_pods_that_differ_in_the_name_of_the_tokens_volume_are_the_same_workload() -> None:
    def read(name: str) -> Any:
        mounting = limited(GOOD_IMAGE, volumeMounts=[{"name": name, "mountPath": "/var/run/secrets"}])
        mounting["spec"]["volumes"] = [{**TOKEN_VOLUME, "name": name}]
        return use_cases.containers_of(use_cases.parse_review(review(mounting)))

    assert read("kube-api-access-aaaaa") == read("kube-api-access-zzzzz")
    assert read("kube-api-access-aaaaa") != read("other-volume")


@pytest.mark.usefixtures("known")
def test_an_allowed_image_is_let_in_and_a_denied_one_is_not(ask: Ask) -> None:
    answer = ask(review(limited(GOOD_IMAGE)))
    assert (answer["uid"], answer["allowed"]) == (UID, True)
    assert "warnings" not in answer
    denied = ask(review(limited(BAD_IMAGE)))
    assert (denied["uid"], denied["allowed"], denied["status"]["code"]) == (UID, False, 403)


@pytest.mark.usefixtures("known")
def test_a_denial_is_written_for_people(ask: Ask) -> None:
    message = ask(review(limited(BAD_IMAGE)))["status"]["message"]
    lines = message.split("\n")
    assert lines[0] == f"{BAD_IMAGE} (container app): denied by policy cluster"
    assert [line[:2] for line in lines[1:4]] == ["1.", "2.", "3."]
    assert "and 4 more." in lines
    assert any(line.startswith("Fix: Upgrade ") for line in lines)
    assert f"See https://dockwarden.example.com/images/{BAD.digest}" in lines


@pytest.mark.usefixtures("known")
def test_a_denial_has_at_most_a_thousand_characters_and_keeps_its_link(ask: Ask) -> None:
    many = pod() | {"spec": {"containers": [container(BAD_IMAGE, f"c{n}" + "x" * 55) for n in range(90)]}}
    message = ask(review(many))["status"]["message"]
    assert len(message) <= 1000
    assert "See https://dockwarden.example.com/images/" in message


@pytest.mark.usefixtures("known")
def test_how_it_is_run_is_judged_with_the_image(ask: Ask) -> None:
    privileged = ask(review(limited(GOOD_IMAGE, securityContext={"privileged": True})))
    assert not privileged["allowed"]
    assert "privileged" in privileged["status"]["message"]
    warned = ask(review(pod(GOOD_IMAGE)))
    assert warned["allowed"]
    assert "memory" in warned["warnings"][0]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("member", ["containers", "initContainers", "ephemeralContainers"])
def test_every_kind_of_container_is_judged(ask: Ask, member: str) -> None:
    spec = {"containers": [container(GOOD_IMAGE)], member: [container(BAD_IMAGE, "other")]}
    assert not ask(review(pod() | {"spec": spec}))["allowed"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    "kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "Rollout"]
)
def test_every_object_with_a_pod_template_is_judged(ask: Ask, kind: str) -> None:
    assert not ask(review(deployment(BAD_IMAGE) | {"kind": kind}))["allowed"]
    assert ask(review(deployment(GOOD_IMAGE) | {"kind": kind}))["allowed"]


@pytest.mark.usefixtures("known")
def test_pods_within_a_cron_job_and_a_template_are_judged(ask: Ask) -> None:
    template = deployment(BAD_IMAGE)["spec"]["template"]
    cron = {"kind": "CronJob", "metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    assert not ask(review(cron))["allowed"]
    assert not ask(review({"kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}))["allowed"]


@pytest.mark.usefixtures("known")
def test_an_update_that_starts_nothing_is_let_through(ask: Ask) -> None:
    old = pod(BAD_IMAGE)
    without_finalizer = old | {"metadata": old["metadata"] | {"finalizers": []}}
    assert ask(review(without_finalizer, "UPDATE", old=old))["allowed"], "else it could never be deleted"
    scaled = deployment(BAD_IMAGE, replicas=5)
    assert not ask(review(scaled, "UPDATE", old=deployment(GOOD_IMAGE)))["allowed"]
    assert ask(review(None, "DELETE", old=old))["allowed"]
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 3}}
    assert ask(review(scale, "UPDATE", old=scale, subResource="scale"))["allowed"]


@pytest.mark.usefixtures("known")
def test_an_ephemeral_container_is_judged_and_not_those_that_run_already(ask: Ask) -> None:
    old = pod(BAD_IMAGE)
    for image, allowed in ((BAD_IMAGE, False), (GOOD_IMAGE, True), (NEW_IMAGE, False)):
        debug = pod(BAD_IMAGE, ephemeralContainers=[container(image, "debug")])
        answer = ask(review(debug, "UPDATE", old=old, subResource="ephemeralcontainers"))
        assert answer["allowed"] is allowed, image


def test_an_image_that_is_not_known_is_denied_and_scanned(ask: Ask, worker: Worker) -> None:
    answer = ask(review(limited(NEW_IMAGE)))
    assert not answer["allowed"]
    assert "being scanned: try again in 30 s" in answer["status"]["message"]
    assert worker.claim().request.lane == "gate"


def test_two_hundred_pods_ask_for_one_scan(ask: Ask, database: Database) -> None:
    for number in range(200):
        assert not ask(review(limited(NEW_IMAGE) | {"metadata": {"name": f"web-{number}"}}))["allowed"]
    with database.read() as session:
        assert len(scans.list_scans(session, None).items) == 1


def test_it_waits_for_a_scan(settings: Settings, database: Database, token: str, worker: Worker) -> None:
    patient = replace(settings, admission_wait_seconds=30)
    client = create_app(patient, database, queue.make_app(patient)).test_client()
    timer = threading.Timer(0.3, lambda: worker.finish(CLEAN))
    timer.start()
    document = review(limited(f"{make.REPOSITORY}:1"))
    answer = client.post(f"{PATH}/{token}", json=document)
    timer.join()
    assert answer.json["response"]["allowed"], answer.json
    with database.session() as session:
        gate.invalidate(session)
    assert client.post(f"{PATH}/{token}", json=document).json["response"]["allowed"], "decided anew from the evidence"


def test_the_webhooks_own_time_out_cuts_the_wait_short(settings: Settings, database: Database, token: str) -> None:
    patient = replace(settings, admission_wait_seconds=600)
    client = create_app(patient, database, queue.make_app(patient)).test_client()
    answer = client.post(f"{PATH}/{token}?timeout=1s", json=review(limited(NEW_IMAGE)))
    assert not answer.json["response"]["allowed"]


def test_allow_and_watch(settings: Settings, database: Database, token: str, worker: Worker) -> None:
    watching = replace(settings, admission_unknown="allow")
    client = create_app(watching, database, queue.make_app(watching)).test_client()
    answer = client.post(f"{PATH}/{token}", json=review(limited(NEW_IMAGE))).json["response"]
    assert answer["allowed"]
    assert "allowed while the image is being scanned" in answer["warnings"][0]
    worker.fail(RemoteError("no such image"))
    answer = client.post(f"{PATH}/{token}", json=review(limited(NEW_IMAGE))).json["response"]
    assert not answer["allowed"], "what was scanned, and could not be decided, is not unknown any more"


def test_a_dry_run_leaves_no_trace(ask: Ask, app: OpenAPI, database: Database) -> None:
    answer = ask(review(limited(NEW_IMAGE), dryRun=True))
    assert not answer["allowed"]
    assert "a dry run starts no scan" in answer["status"]["message"]
    recorder(app)
    with database.read() as session:
        assert scans.list_scans(session, None).items == ()
        assert admissions.list_reviews(session).items == ()


@pytest.mark.usefixtures("known")
def test_a_namespace_warns_or_is_only_audited(ask: Ask) -> None:
    warned = ask(review(limited(BAD_IMAGE)), "/warn")
    assert warned["allowed"]
    assert "would be denied" in warned["warnings"][0]
    assert len(warned["warnings"][0]) <= 256
    audited = ask(review(limited(BAD_IMAGE)), "/audit")
    assert audited["allowed"]
    assert "warnings" not in audited
    assert audited["auditAnnotations"]["outcome"] == "audited"
    assert "denied by policy cluster" in audited["auditAnnotations"]["reason"]


@pytest.mark.usefixtures("known")
def test_settings_of_a_namespace_win_over_the_address(settings: Settings, database: Database, token: str) -> None:
    own = replace(
        settings,
        admission_modes=("shop-test=warn", "shop*=enforce"),
        admission_environments=("shop=production",),
        admission_exempt=("kube-*",),
    )
    with database.session() as session:
        policies.put(session, "strict", ENVIRONMENT, "test")
        gate.invalidate(session)
    client = create_app(own, database, queue.make_app(own)).test_client()

    def allowed(value: dict[str, Any], namespace: str, where: str = "") -> bool:
        document = review(value, namespace=namespace)
        found: bool = client.post(f"{PATH}/{token}{where}", json=document).json["response"]["allowed"]
        return found

    assert not allowed(limited(BAD_IMAGE), "shop", "/audit")
    assert allowed(limited(BAD_IMAGE), "shop-test")
    assert allowed(limited(BAD_IMAGE), "kube-system"), "system namespaces are exempt by name"
    assert not allowed(pod(GOOD_IMAGE), "shop"), "production denies without limits"
    assert allowed(pod(GOOD_IMAGE), "other")
    assert not allowed(pod(GOOD_IMAGE), "other", "/enforce/production")


# Who may ask


def test_nobody_asks_without_a_token(app: OpenAPI, make_token: Callable[..., str], token: str) -> None:
    client, document = app.test_client(), review(limited(GOOD_IMAGE))
    assert client.post(PATH, json=document).status_code == 401
    assert client.post(f"{PATH}/{token}x", json=document).status_code == 401
    assert client.post(f"{PATH}/{make_token('read', 'gate')}", json=document).status_code == 403
    headers = {"Authorization": f"Bearer {token}"}
    assert client.post(PATH, json=document, headers=headers).status_code == 200


def test_the_token_of_the_address_is_in_no_log(ask: Ask, token: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ask(review(limited(NEW_IMAGE)))
        ask(b"{")
    assert token not in caplog.text
    assert token not in "".join(repr(record.__dict__) for record in caplog.records)


def test_an_image_of_a_project_that_the_token_does_not_see(
    app: OpenAPI, make_token: Callable[..., str], known: None
) -> None:
    confined = make_token("admission", projects=["elsewhere"])
    answer = app.test_client().post(f"{PATH}/{confined}", json=review(limited(GOOD_IMAGE))).json["response"]
    assert not answer["allowed"]


# What is broken


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"kind": "AdmissionReview", "kind": "AdmissionReview"}',
        {},
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "1"}},
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"},
        review(None),
        review(pod(GOOD_IMAGE), "PATCH"),
        review(pod(GOOD_IMAGE), uid=7),
        review(pod(GOOD_IMAGE), kind={"kind": "ConfigMap"}),
        review(pod(GOOD_IMAGE), kind={}),
        review(pod()),
        review(pod() | {"spec": None}),
        review(pod() | {"spec": {"containers": {"image": "x"}}}),
        review(pod("UPPER/not an image")),
        review(pod("{{ image }}")),
        review(pod(GOOD_IMAGE) | {"spec": {"containers": [container(GOOD_IMAGE)], "hostPID": 1 << 80}}),
        review(pod(*[GOOD_IMAGE] * 101)),
        b"[" * 100_000,
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.usefixtures("known")
def test_what_cannot_be_read_is_a_denial_and_no_error(ask: Ask, document: Any) -> None:
    answer = ask(document)
    assert answer["allowed"] is False
    assert answer["status"]["message"]


def test_a_review_as_large_as_an_object_may_be_is_read(ask: Ask) -> None:
    large = limited(NEW_IMAGE)
    large["metadata"] |= {"annotations": {f"note{number}": "x" * 200_000 for number in range(7)}}
    answer = ask(review(large, "UPDATE", old=pod(GOOD_IMAGE)))
    assert "being scanned" in answer["status"]["message"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("error", "told"), [(RemoteError("the disk is full", reason="disk_full"), "disk is full"), (KeyError(), "internal")]
)
def test_a_fault_of_ours_denies(ask: Ask, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(use_cases, "containers_of", fail)
    answer = ask(review(limited(GOOD_IMAGE)))
    assert not answer["allowed"]
    assert told in answer["status"]["message"]
    assert ask(review(limited(GOOD_IMAGE)), "/warn")["allowed"], "a mode that enforces nothing holds nothing up"


def test_a_database_that_is_away_lets_nothing_in(ask: Ask, app: OpenAPI, token: str, database: Database) -> None:
    """Who asks cannot be told: an error, and the webhook's failurePolicy decides."""
    assert not ask(review(limited(NEW_IMAGE)))["allowed"]
    gate_of = app.extensions["dockwarden"].gate
    gate_of._forget()
    database.engine.dispose()
    file = Path(str(database.engine.url.database))
    file.rename(file.with_suffix(".away"))
    file.mkdir()
    try:
        answer = app.test_client().post(f"{PATH}/{token}", json=review(limited(GOOD_IMAGE)))
    finally:
        file.rmdir()
        file.with_suffix(".away").rename(file)
    assert answer.status_code == 503
    assert "allowed" not in answer.text


# What is seen of it


def recorder(app: OpenAPI) -> None:
    if (found := app.extensions.get("doors_recorder")) is not None:
        found.flush()


@pytest.mark.usefixtures("known")
def test_reviews_are_shown_and_denials_audited(ask: Ask, app: OpenAPI, api: Api, database: Database) -> None:
    ask(review(limited(GOOD_IMAGE)))
    for _ in range(3):
        ask(review(limited(BAD_IMAGE)))
    recorder(app)
    with database.read() as session:
        rows = admissions.list_reviews(session).items
        entries = audit.list_entries(session, audit.Filter(action="admission.deny")).items
    assert [row.outcome for row in rows] == ["denied"] * 3 + ["allowed"]
    assert (rows[0].user, rows[0].namespace, rows[0].name) == ("kim@example.com", "shop", "web")
    assert rows[0].images[0]["digest"] == BAD.digest
    assert len(entries) == 1
    assert entries[0].detail["times"] == 3


# Never an allow that the policy does not give

IMAGES = st.sampled_from([GOOD_IMAGE, BAD_IMAGE, NEW_IMAGE, f"{make.REPOSITORY}:1", "", "UPPER", "a b", "x" * 300])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | IMAGES
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"image": IMAGES},
        optional={"name": SCALARS, "securityContext": VALUES, "volumeMounts": VALUES, "resources": VALUES},
    ),
    max_size=3,
)
SPECS = st.fixed_dictionaries(
    {"containers": CONTAINERS},
    optional={"initContainers": CONTAINERS, "ephemeralContainers": CONTAINERS, "volumes": VALUES, "hostPID": SCALARS},
)
REQUESTS = st.fixed_dictionaries(
    {
        "uid": st.just(UID) | SCALARS,
        "operation": st.sampled_from(["CREATE", "UPDATE"]) | SCALARS,
        "kind": st.just({"kind": "Pod"}) | VALUES,
        "namespace": st.just("shop") | SCALARS,
        "object": st.fixed_dictionaries(
            {"spec": SPECS}, optional={"kind": st.just("Pod") | SCALARS, "metadata": VALUES}
        )
        | VALUES,
    },
    optional={
        "oldObject": VALUES,
        "subResource": st.sampled_from(["", "ephemeralcontainers"]) | SCALARS,
        "dryRun": SCALARS,
    },
)


def _images_in(value: Any) -> set[str]:
    spec = value.get("spec") if isinstance(value, dict) else None
    return {
        each["image"]
        for member in ("containers", "initContainers", "ephemeralContainers")
        for each in (spec.get(member) or [] if isinstance(spec, dict) else [])
        if isinstance(each, dict)
    }


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(request=REQUESTS)
@pytest.mark.usefixtures("known")
def test_no_review_is_let_in_that_the_policy_does_not_allow(ask: Ask, request: dict[str, Any]) -> None:
    answer = ask({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
    judged = request["operation"] in ("CREATE", "UPDATE") and request.get("subResource") not in ("scale", "status")
    if answer["allowed"] and judged:
        assert request["kind"]["kind"] != "Pod" or _images_in(request["object"]) == {GOOD_IMAGE}


# Pinning tags


def test_tags_of_a_new_pod_are_pinned_to_what_was_judged(
    app: OpenAPI, token: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = app.test_client()

    def patch(document: Any) -> list[dict[str, str]]:
        answer = client.post(f"/adapters/kubernetes/pin/{token}", json=document)
        assert (answer.status_code, answer.json["response"]["allowed"]) == (200, True)
        text = answer.json["response"].get("patch")
        found: list[dict[str, str]] = json.loads(base64.b64decode(text)) if text else []
        return found

    tagged = pod(f"{make.REPOSITORY}:1", GOOD_IMAGE)
    assert patch(review(tagged)) == [], "it is not known yet: the validating webhook denies it"
    worker.finish(CLEAN)
    pinned = f"{make.REPOSITORY}:1@{CLEAN.digest}"
    assert patch(review(tagged)) == [{"op": "replace", "path": "/spec/containers/0/image", "value": pinned}]
    mounting = pod(GOOD_IMAGE, volumes=[{"name": "a"}, {"name": "b", "image": {"reference": f"{make.REPOSITORY}:1"}}])
    reference = {"op": "replace", "path": "/spec/volumes/1/image/reference", "value": pinned}
    assert patch(review(mounting)) == [reference]
    assert patch(review(deployment(f"{make.REPOSITORY}:1"))) == [], "a controller keeps what people wrote"
    assert patch(review(tagged, "UPDATE", old=tagged)) == []
    assert patch(review(pod(f"{make.REPOSITORY}:1", namespace="kube-system"))) == []
    broken = client.post(f"/adapters/kubernetes/pin/{token}", data=b"{")
    assert broken.json["response"]["allowed"] is False
    monkeypatch.setattr(use_cases, "pins", lambda *asked, **more: 1 / 0)
    assert patch(review(tagged)) == [], "an error of ours leaves the Pod to the validating webhook"


@pytest.mark.usefixtures("known")
def test_a_client_certificate_of_the_api_server_counts_instead_of_a_token(
    settings: Settings, database: Database, worker: Worker
) -> None:
    app = create_app(replace(settings, admission_client_names=("api-server",)), database)
    client = app.test_client()

    def certificate(name: str, year: int = 9999) -> dict[str, Any]:
        subject = ((("commonName", name),),)
        return {CLIENT_CERTIFICATE: {"subject": subject, "notAfter": f"Jan  1 00:00:00 {year} GMT"}}

    def status(where: str, environ: dict[str, Any], **more: Any) -> int:
        return client.post(
            f"{PATH}{where}", json=review(limited(GOOD_IMAGE)), environ_overrides=environ, **more
        ).status_code

    own = certificate("api-server")
    for where in ("", "/certificate", "/certificate/enforce", "/certificate/enforce/production"):
        for image, allowed in ((GOOD_IMAGE, True), (BAD_IMAGE, False), (NEW_IMAGE, False)):
            answer = client.post(f"{PATH}{where}", json=review(limited(image)), environ_overrides=own)
            assert (answer.status_code, answer.json["response"]["allowed"]) == (200, allowed), where
    assert status("/certificate", {}) == 401
    assert status("/certificate", certificate("node-1")) == 401
    assert status("/certificate", certificate("api-server", 2020)) == 401
    assert status("/dw_a-wrong-token", own) == 401
    # A proxy that ends TLS shows its own certificate for everybody who reaches it.
    for header in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via"):
        answer = client.post(f"{PATH}/certificate", json={}, environ_overrides=own, headers={header: "192.0.2.7"})
        assert (answer.status_code, "use a token" in answer.text) == (401, True), header
    forged = {"Dockwarden.Client-Certificate": "api-server", "X-Client-Certificate": "api-server"}
    assert status("/certificate", {}, headers=forged) == 401
    for path in ("/api/v1/images", "/adapters/docker/authorize", "/adapters/registry/authorize"):
        assert client.open(path, environ_overrides=own).status_code in (401, 405), path
    with database.session() as session:
        (asked,) = [each for each in scans.list_scans(session, None).items if each.request.target == NEW_IMAGE]
    assert asked.request.requested_by == "certificate api-server"
