"""Admission on a real API server: what is denied is not stored, by whatever way it comes."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scanner.config import Secret
from scanner.model.scan import Lane, ScanReport, ScanRequest
from scanner.store import admissions, scans
from tests.kubernetes_objects import container, deployment, pod
from tests.kubernetes_servers import CLIENT_NAME, Cluster, Door
from tests.scanner.store import factories as make
from tests.servers import Authority, free_port, wait_for
from tests.web.adapters.test_kubernetes import BAD, BAD_IMAGE, CLEAN, GOOD_IMAGE, LIMITED, NEW_IMAGE, POLICY
from tests.web.conftest import Worker

pytestmark = pytest.mark.real_clock  # the API server would find our certificate to be of its future


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started once for all tests: it takes a second or three, and 300 MB."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster")).start()
    for name, labels in (("shop", ""), ("lab", "dockwarden/mode=warn"), ("records", "dockwarden/mode=audit")):
        cluster.kubectl("create", "namespace", name)
        if labels:
            cluster.kubectl("label", "namespace", name, labels)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("door"), cluster.clients.file).start()
    door.policy(POLICY)
    for found, image in ((CLEAN, GOOD_IMAGE), (BAD, BAD_IMAGE)):
        record(door, found, image)
    cluster.kubectl("apply", "-f", "-", stdin=door.manifests(environments=("production",)))
    wait_for(lambda: refuses(cluster), "the webhook", door.directory / "log")  # the API server learns of it in a moment
    yield door
    cluster.kubectl("delete", "validatingwebhookconfigurations", "--all")
    door.stop()


def record(door: Door, found: ScanReport, image: str) -> None:
    with door.database.session() as session:
        scans.request(session, ScanRequest(image, lane=Lane.GATE))
    worker = Worker(door.database)
    while (claim := worker.claim()).request.target != image:
        pass  # what an earlier test asked for stays claimed
    worker.finish(found, claim)


def refuses(cluster: Cluster) -> bool:
    return cluster.create_at_once([named(BAD_IMAGE, "probe")]) == [403]


def named(image: str, name: str, namespace: str = "shop") -> dict[str, Any]:
    value = pod(image, name=name, namespace=namespace)
    value["spec"]["containers"] = [container(image, **LIMITED)]
    return value


@pytest.mark.usefixtures("door")
def test_what_is_denied_is_not_stored_and_the_person_is_told_why(cluster: Cluster) -> None:
    assert "created" in cluster.apply(named(GOOD_IMAGE, "good"))
    told = cluster.apply(named(BAD_IMAGE, "bad"), fails=True)
    assert 'admission webhook "enforce.any.admission.dockwarden" denied the request' in told
    assert f"{BAD_IMAGE} (container app): denied by policy cluster" in told
    assert "Fix: Upgrade" in told
    assert "NotFound" in cluster.kubectl("get", "pod", "bad", "-n", "shop", fails=True)


@pytest.mark.usefixtures("door")
def test_an_update_a_scale_and_a_cron_job(cluster: Cluster) -> None:
    cluster.apply(deployment(GOOD_IMAGE))
    told = cluster.kubectl("set", "image", "deployment/web", f"app={BAD_IMAGE}", "-n", "shop", fails=True)
    assert "denied by policy" in told
    assert "scaled" in cluster.kubectl("scale", "deployment/web", "--replicas=7", "-n", "shop")
    cron = ["create", "cronjob", "bad", f"--image={BAD_IMAGE}", "--schedule=0 1 * * *", "-n", "shop"]
    assert "denied by policy" in cluster.kubectl(*cron, fails=True)


@pytest.mark.usefixtures("door")
def test_an_ephemeral_container(cluster: Cluster) -> None:
    cluster.apply(named(GOOD_IMAGE, "debugged"))
    command = ["debug", "debugged", "-n", "shop", "-c", "tools", "--profile=general"]
    assert "denied by policy" in cluster.kubectl(*command, f"--image={BAD_IMAGE}", fails=True)
    cluster.kubectl(*command, f"--image={GOOD_IMAGE}")
    path = "jsonpath={.spec.ephemeralContainers[*].image}"
    assert cluster.kubectl("get", "pod", "debugged", "-n", "shop", "-o", path) == GOOD_IMAGE


def test_a_dry_run_is_denied_as_the_real_thing_and_leaves_no_trace(cluster: Cluster, door: Door) -> None:
    assert "denied by policy" in cluster.apply(named(BAD_IMAGE, "dry"), "--dry-run=server", fails=True)
    assert "a dry run starts no scan" in cluster.apply(named(NEW_IMAGE, "dry"), "--dry-run=server", fails=True)
    with door.database.read() as session:
        assert NEW_IMAGE not in {scan.request.target for scan in scans.list_scans(session, None).items}
        assert "dry" not in {row.name for row in admissions.list_reviews(session).items}


def test_an_image_that_nobody_scanned_is_denied_and_scanned(cluster: Cluster, door: Door) -> None:
    image = NEW_IMAGE.replace("9", "8")
    told = cluster.apply(named(image, "new"), fails=True)
    assert "being scanned: try again in 30 s" in told
    with door.database.read() as session:
        (asked,) = [scan for scan in scans.list_scans(session, None).items if scan.request.target == image]
    assert asked.request.lane is Lane.GATE


@pytest.mark.usefixtures("door")
def test_the_example_tells_whether_an_image_would_be_let_in(cluster: Cluster) -> None:
    for image, code, told in ((BAD_IMAGE, 1, "denied by policy"), (GOOD_IMAGE, 0, "let in")):
        done = cluster.example("kubernetes/refused.sh", image, "shop")
        assert (done.returncode, told in done.stdout) == (code, True), done.stdout + done.stderr


@pytest.mark.usefixtures("door")
def test_namespaces_that_warn_or_are_audited(cluster: Cluster) -> None:
    told = cluster.apply(named(BAD_IMAGE, "warned", "lab"))
    assert "Warning: " in told
    assert "would be denied" in told
    assert "Warning" not in cluster.apply(named(BAD_IMAGE, "quiet", "records"))


@pytest.mark.usefixtures("door")
def test_a_pod_that_runs_what_is_denied_by_now_can_be_deleted_and_labelled(cluster: Cluster) -> None:
    cluster.apply(named(BAD_IMAGE, "leaving", "lab"))
    cluster.kubectl("label", "namespace", "lab", "dockwarden/mode-")
    try:
        assert "labeled" in cluster.kubectl("label", "pod", "leaving", "team=a", "-n", "lab")
        assert "deleted" in cluster.kubectl("delete", "pod", "leaving", "-n", "lab", "--now")
    finally:
        cluster.kubectl("label", "namespace", "lab", "dockwarden/mode=warn")


def test_two_hundred_pods_at_once(cluster: Cluster, door: Door) -> None:
    good = [named(GOOD_IMAGE, f"good-{number}") for number in range(100)]
    bad = [named(BAD_IMAGE, f"bad-{number}") for number in range(100)]
    statuses = cluster.create_at_once([each for pair in zip(good, bad, strict=True) for each in pair])
    assert statuses == [201, 403] * 100

    def recorded() -> bool:
        with door.database.read() as session:
            return len({r.name for r in admissions.list_reviews(session, limit=500).items if "-" in r.name}) == 200

    wait_for(recorded, "the record of 200 reviews", door.directory / "log")


def test_a_renewed_certificate_is_used_and_an_expired_one_lets_nothing_in(
    cluster: Cluster, door: Door, tmp_path: Path
) -> None:
    door.renew_certificate()
    assert cluster.create_at_once([named(GOOD_IMAGE, "renewed"), named(BAD_IMAGE, "renewed-bad")]) == [201, 403]
    door.renew_certificate(days=-1)
    try:
        # By another name: the API server would go on with the connections that it has.
        cluster.kubectl("apply", "-f", "-", stdin=door.manifests(url=f"https://localhost:{door.port}"))
        (tmp_path / "log").touch()
        wait_for(
            lambda: cluster.create_at_once([named(GOOD_IMAGE, "expired")]) == [500], "the refusal", tmp_path / "log"
        )
        assert "certificate has expired" in cluster.apply(named(GOOD_IMAGE, "expired-too"), fails=True)
    finally:
        door.renew_certificate()
        cluster.kubectl("apply", "-f", "-", stdin=door.manifests(environments=("production",)))
        wait_for(lambda: refuses(cluster), "the webhook", door.directory / "log")


def test_an_api_server_that_authenticates_by_its_certificate(cluster: Cluster, door: Door, tmp_path: Path) -> None:
    """No token is in the configuration. By another name, so that the API server opens new connections."""
    told = {"url": f"https://localhost:{door.port}", "token": Secret(""), "client_names": (CLIENT_NAME,)}
    text = door.manifests(**told)
    assert f"https://localhost:{door.port}/adapters/kubernetes/admit/certificate/enforce" in text
    cluster.kubectl("apply", "-f", "-", stdin=text)
    try:
        (tmp_path / "log").touch()
        asked = scans_requested_by_certificate(door)
        numbers = itertools.count()

        def judged() -> bool:
            """The record of a scan tells who asked: the API server takes up a changed configuration within a moment."""
            image = NEW_IMAGE.replace("9", "7", next(numbers) + 1)
            cluster.apply(named(image, "certified-new"), fails=True)
            return scans_requested_by_certificate(door) > asked

        wait_for(judged, "a review by certificate", tmp_path / "log")
        assert cluster.create_at_once([named(GOOD_IMAGE, "certified"), named(BAD_IMAGE, "certified")]) == [201, 403]
    finally:
        cluster.kubectl("apply", "-f", "-", stdin=door.manifests(environments=("production",)))
        wait_for(lambda: refuses(cluster), "the webhook", door.directory / "log")


def scans_requested_by_certificate(door: Door) -> int:
    with door.database.read() as session:
        found = scans.list_scans(session, None, limit=500).items
        return sum(each.request.requested_by == f"certificate {CLIENT_NAME}" for each in found)


def test_another_certificate_or_none_is_not_the_api_server(cluster: Cluster, door: Door, tmp_path: Path) -> None:
    trust = str(door.authority.file)
    path = f"https://localhost:{door.port}/adapters/kubernetes/admit/certificate"

    def status(certificate: tuple[Path, Path] | None) -> int:
        context = ssl.create_default_context(cafile=trust)
        if certificate:
            context.load_cert_chain(*certificate)
        with httpx.Client(verify=context, timeout=60) as client:
            return client.post(path, json={}, headers={"X-Client-Certificate": CLIENT_NAME}).status_code

    assert status(cluster.clients.issue("api-server", (CLIENT_NAME,))) == 200, "an answer about a malformed review"
    assert status(None) == 401
    assert status(cluster.clients.issue("node", ("node-1.tests",))) == 401
    foreign = Authority.make(tmp_path / "foreign").issue("api-server", (CLIENT_NAME,))
    with pytest.raises(httpx.TransportError):
        status(foreign)
    with pytest.raises(httpx.TransportError):
        status(cluster.clients.issue("expired", (CLIENT_NAME,), days=-1))


def test_tags_are_pinned_to_the_digest_that_was_judged(cluster: Cluster, door: Door, tmp_path: Path) -> None:
    tag = f"{make.REPOSITORY}:stable"
    record(door, CLEAN, tag)
    cluster.kubectl("apply", "-f", "-", stdin=door.manifests(environments=("production",), pin_tags=True))

    def image(name: str) -> str:
        cluster.apply(named(tag, name))
        return cluster.kubectl("get", "pod", name, "-n", "shop", "-o", "jsonpath={.spec.containers[0].image}")

    try:
        (tmp_path / "log").touch()
        numbers = itertools.count()
        # The API server takes up a changed configuration within a moment.
        wait_for(lambda: image(f"pinned-{next(numbers)}") == f"{tag}@{CLEAN.digest}", "a pinned pod", tmp_path / "log")
        cluster.apply(deployment(tag, name="pinned"))
        path = "jsonpath={.spec.template.spec.containers[0].image}"
        assert cluster.kubectl("get", "deployment", "pinned", "-n", "shop", "-o", path) == tag
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfigurations", "--all")


@pytest.mark.parametrize(("policy", "fails"), [("Fail", True), ("Ignore", False)])
def test_a_server_that_is_away_does_what_the_failure_policy_says(
    cluster: Cluster, door: Door, policy: str, fails: bool, tmp_path: Path
) -> None:
    away = door.manifests(url=f"https://127.0.0.1:{free_port()}", failure_policy=policy, timeout=1)
    cluster.kubectl("create", "namespace", f"away-{policy.lower()}")
    cluster.kubectl("apply", "-f", "-", stdin=away)
    try:
        image = named(GOOD_IMAGE if fails else BAD_IMAGE, "away", f"away-{policy.lower()}")
        log = tmp_path / "log"
        log.touch()
        # The API server takes up a changed configuration within a moment.
        wait_for(lambda: cluster.create_at_once([image]) == [500 if fails else 201], f"policy {policy}", log)
    finally:
        cluster.kubectl("apply", "-f", "-", stdin=door.manifests(environments=("production",)))
        wait_for(lambda: refuses(cluster), "the webhook", door.directory / "log")
