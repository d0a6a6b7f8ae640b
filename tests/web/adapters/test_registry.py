"""The pull gate: what is denied cannot be pulled, whatever it is called, and what is no pull passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from scanner.config import Settings
from scanner.errors import NotFoundError, RemoteError, UsageError
from scanner.model import pull_proof
from scanner.model.finding import Severity
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.model.scan import ScanReport
from scanner.services import pulls as use_cases
from scanner.store import admissions, audit, gate, policies, pulls, registries, scans
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.adapters.test_kubernetes import POLICY
from tests.web.conftest import KEY, Api, Worker
from web import throttle

HOST, REPOSITORY = make.REPOSITORY.split("/", 1)
PATH = "/adapters/registry/authorize"
CLEAN = make.report("clean", packages=[make.package(1)])
BAD = make.report(
    "bad",
    packages=[make.package(1)],
    vulnerabilities=[make.vulnerability(1, make.package(1), severity=Severity.CRITICAL)],
)
ARTIFACT = Digest.of(b"a signature")


def index() -> ScanReport:
    """An index of two platforms, one of which is denied."""
    children = [replace(CLEAN.images[0]), replace(BAD.images[0])]
    other = replace(children[1].image.config, platform=Platform("linux", "arm64"))
    children[1] = replace(children[1], image=replace(children[1].image, config=other))
    subject = Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(b"an index"), 900)
    return replace(CLEAN, subject=subject, images=tuple(children), tag="2")


@pytest.fixture(autouse=True)
def in_force(database: Database, registry: registries.RegistryView) -> None:
    with database.session() as session:
        policies.put(session, "cluster", POLICY, "test")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, pull_wait_seconds=0.0, public_url="https://dockwarden.example.com")


Pull = Callable[..., TestResponse]


@pytest.fixture
def pull(app: OpenAPI, make_token: Callable[..., str]) -> Pull:
    """A request as nginx asks about it."""
    client, token = app.test_client(), make_token("pull")

    def pull(uri: str, method: str = "GET", query: str = "", **headers: str) -> TestResponse:
        sent = {"Authorization": f"Bearer {token}", "X-Original-URI": uri, "X-Original-Method": method}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer: TestResponse = client.get(f"{PATH}{query}", headers=sent)
        return answer

    return pull


@pytest.fixture
def known(api: Api, worker: Worker) -> None:
    for found, name in ((CLEAN, f"@{CLEAN.digest}"), (BAD, f"@{BAD.digest}")):
        assert api("POST", "/scans", {"image": f"{make.REPOSITORY}{name}"}).status_code == 202
        worker.finish(found)


def manifest(name: str, repository: str = REPOSITORY) -> str:
    return f"/v2/{repository}/manifests/{name}"


def blob(digest: str, repository: str = REPOSITORY) -> str:
    return f"/v2/{repository}/blobs/{digest}"


@pytest.mark.usefixtures("known")
def test_by_digest_an_allowed_image_is_pulled_and_a_denied_one_is_not(pull: Pull) -> None:
    for method in ("GET", "HEAD"):
        allowed = pull(manifest(CLEAN.digest), method)
        assert (allowed.status_code, allowed.headers["X-Dockwarden-Digest"]) == (200, CLEAN.digest)
        assert "X-Dockwarden-Uri" not in allowed.headers, "it names the digest already"
        assert pull(manifest(BAD.digest), method).status_code == 403


@pytest.mark.usefixtures("known")
def test_a_denial_has_the_registrys_error_body_with_reason_and_link(pull: Pull) -> None:
    answer = pull(manifest(BAD.digest))
    (error,) = answer.json["errors"]
    assert error["code"] == "DENIED"
    assert error["message"].startswith(f"{make.REPOSITORY}@{BAD.digest}: denied by policy cluster; 1. CVE-")
    assert error["detail"]["link"] == f"https://dockwarden.example.com/images/{BAD.digest}"
    assert error["detail"]["reasons"]
    assert answer.headers["X-Dockwarden-Error"] == answer.text, "nginx drops the body of a subrequest"


def test_a_tag_is_resolved_and_what_was_judged_is_what_is_served(pull: Pull, worker: Worker) -> None:
    waiting = pull(manifest("1"))
    assert (waiting.status_code, waiting.headers["Retry-After"]) == (403, "30")
    assert "being scanned" in waiting.json["errors"][0]["message"]
    claim = worker.claim()
    assert (claim.request.lane, claim.request.source) == ("gate", "pull")
    worker.finish(CLEAN, claim)
    answer = pull(manifest("1") + "?ns=docker.io")
    assert answer.status_code == 200
    assert answer.headers["X-Dockwarden-Uri"] == f"{manifest(CLEAN.digest)}?ns=docker.io"


def test_a_client_that_asks_for_many_unknown_images_does_not_fill_the_queue(
    limited: OpenAPI, database: Database, make_token: Callable[..., str]
) -> None:
    """Strangers may pull from many registries: each tag that they invent was a scan before everybody's new images."""
    stopped = limited.extensions["dockwarden"].throttle
    stopped.take("door-scans", "pull|192.0.2.7", throttle.SCANS, throttle.SCANS.burst - 1)
    token = make_token("pull")

    def told(tag: str, client: str) -> str:
        headers = {"X-Original-URI": manifest(tag), "X-Original-Method": "GET", "X-Real-IP": client}
        answer = limited.test_client().get(f"{PATH}/{token}", headers=headers)
        assert answer.status_code == 403
        return str(answer.json["errors"][0]["message"])

    assert "being scanned" in told("1", "192.0.2.7")
    assert "too many images" in told("2", "192.0.2.7")
    assert "being scanned" in told("1", "192.0.2.7"), "it is no new scan"
    with database.read() as session:
        assert [each.request.target for each in scans.list_scans(session, None).items] == [f"{make.REPOSITORY}:1"]
    assert "being scanned" in told("2", "192.0.2.8"), "others are scanned as before"
    stopped.take("door-scans-all", "pull", throttle.DOOR_SCANS, throttle.DOOR_SCANS.burst - 2)
    assert "too many images" in told("3", "192.0.2.9"), "a client can forge its address"
    assert ("door-scans", "pull|192.0.2.9") not in stopped._buckets, "it would push out those of failed sign-ins"


def test_a_tag_of_a_denied_image(pull: Pull, worker: Worker) -> None:
    assert pull(manifest("1")).status_code == 403
    worker.finish(BAD)
    answer = pull(manifest("1"))
    assert "denied by policy" in answer.json["errors"][0]["message"]


def test_what_the_registry_does_not_have_is_told_so(pull: Pull, worker: Worker) -> None:
    """Clients ask for signatures and before they push: a refusal would stop them."""
    pull(manifest("sha256-aaaa.sig"))
    worker.fail(NotFoundError("the registry has no manifest"))
    answer = pull(manifest("sha256-aaaa.sig"))
    assert (answer.status_code, answer.headers["X-Dockwarden-Status"]) == (403, "404"), "nginx knows no 404 here"
    assert answer.json["errors"][0]["code"] == "MANIFEST_UNKNOWN"


def test_a_scan_that_failed_denies(pull: Pull, worker: Worker) -> None:
    pull(manifest("1"))
    worker.fail(RemoteError("the registry does not answer"))
    answer = pull(manifest("1"))
    assert (answer.status_code, answer.json["errors"][0]["code"]) == (403, "DENIED")


@pytest.mark.parametrize("name", [ARTIFACT, f"sha256-{CLEAN.digest[7:]}.sig"])
def test_signatures_and_boms_are_pulled(pull: Pull, worker: Worker, database: Database, name: str) -> None:
    assert pull(manifest(name)).status_code == 403
    claim = worker.claim()
    with database.session() as session:
        pulls.note_blobs(
            session, ARTIFACT, {(Digest.of(b"payload"), ARTIFACT), (BAD.images[0].image.layers[0].digest, ARTIFACT)}
        )
        scans.finish_without_image(session, claim, ARTIFACT, "not an image manifest: a signature of cosign")
    assert pull(manifest(name)).status_code == 200
    assert pull(blob(Digest.of(b"payload")), query="?strict=1").status_code == 200
    with database.read() as session:
        assert len(scans.list_scans(session, None).items) == 1, "a digest stays what it is"


def test_a_child_of_an_index_is_judged_by_its_own_verdict(pull: Pull, api: Api, worker: Worker) -> None:
    found = index()
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:2"})
    worker.finish(found)
    assert pull(manifest(found.digest)).status_code == 403, "the worst of its images"
    assert pull(manifest(BAD.digest)).status_code == 403
    assert pull(manifest(CLEAN.digest)).status_code == 200
    assert pull(blob(CLEAN.images[0].image.layers[0].digest), query="?strict=1").status_code == 200
    assert pull(blob(BAD.images[0].image.layers[0].digest), query="?strict=1").status_code == 403


@pytest.mark.usefixtures("known")
def test_under_another_repositorys_name_it_is_judged_again(pull: Pull, worker: Worker) -> None:
    """A blob or a manifest that was mounted elsewhere: what is known about one name says nothing about another."""
    assert pull(manifest(CLEAN.digest, "other/name")).status_code == 403
    worker.finish(BAD)
    assert pull(manifest(BAD.digest, "other/name")).status_code == 403


@pytest.mark.usefixtures("known")
def test_strict_opens_only_blobs_of_allowed_images(pull: Pull, database: Database) -> None:
    strict = "?strict=1"
    layer, denied = (each.images[0].image.layers[0].digest for each in (CLEAN, BAD))
    assert pull(blob(layer), query=strict).status_code == 200
    assert pull(blob(CLEAN.images[0].image.config.digest), query=strict).status_code == 200
    assert pull(blob(denied), query=strict).status_code == 403
    assert pull(blob(denied)).status_code == 200, "without its manifest nothing runs"
    assert pull(blob(denied), "HEAD", query=strict).status_code == 200, "so a push asks what it need not send"
    assert pull(blob(layer, "other/name"), query=strict).status_code == 403
    assert pull(blob(Digest.of(b"unknown")), query=strict).status_code == 403
    with database.session() as session:  # an artifact that names a denied image's layer opens nothing
        pulls.note_blobs(session, ARTIFACT, {(denied, ARTIFACT)})
    assert pull(blob(denied), query=strict).status_code == 403


def test_pushes_pass(pull: Pull) -> None:
    for method, uri in product(
        ("PUT", "POST", "PATCH", "DELETE"),
        (manifest("1"), f"/v2/{REPOSITORY}/blobs/uploads/?mount={BAD.digest}&from=a/b", blob(BAD.digest)),
    ):
        assert pull(uri, method).status_code == 200


PASSING = [
    "/v2/",
    "/v2",
    "/v2/_catalog?n=100",
    f"/v2/{REPOSITORY}/tags/list",
    f"/v2/{REPOSITORY}/referrers/{BAD.digest}",
    f"/v2/{REPOSITORY}/blobs/uploads/0f3c?_state=abc",
    f"/v2/{REPOSITORY}/_trust/tuf/root.json",
    "/token?service=registry&scope=repository:shop/cart:pull",
    "/",
    "/api/v1/repositories/shop/images",
    "/ui/v2/assets/app.js",
]


def test_what_is_no_pull_passes(pull: Pull) -> None:
    for uri in PASSING:
        assert pull(uri).status_code == 200, uri


AMBIGUOUS = [
    f"//v2/{REPOSITORY}/manifests/{BAD.digest}",
    f"/v2//{REPOSITORY}/manifests/{BAD.digest}",
    f"/v2/{REPOSITORY}/manifests//{BAD.digest}",
    f"/x/../v2/{REPOSITORY}/manifests/{BAD.digest}",
    f"/./v2/{REPOSITORY}/manifests/{BAD.digest}",
    f"/v2/shop%2fcart/manifests/{BAD.digest}",
    f"/v2/{REPOSITORY}/%6danifests/{BAD.digest}",
    f"/%76%32/{REPOSITORY}/manifests/{BAD.digest}",
    f"/v2/{REPOSITORY}/manifests/sha256%253a{BAD.digest[7:]}",
    f"/V2/{REPOSITORY}/manifests/{BAD.digest}",
    f"/v2/{REPOSITORY}/Manifests/{BAD.digest}",
    f"/v2/{REPOSITORY}\\manifests\\{BAD.digest}",
    f"/v2/{REPOSITORY}/manifests/{BAD.digest.upper()}",
    f"/v2/{REPOSITORY}/manifests/{BAD.digest}/",
    f"/v2/{REPOSITORY}/manifests/{BAD.digest[:-1]}",
    f"/v2/{REPOSITORY}/manifests/sha256%3A{BAD.digest[7:]}",
    f"/v2/Shop/cart/manifests/{BAD.digest}",
    f"/v2/{REPOSITORY}/manifest/{BAD.digest}",
    f"https://evil.example/v2/{REPOSITORY}/manifests/{BAD.digest}",
    f"/artifactory/api/docker/local/v2/{REPOSITORY}/manifests/{BAD.digest}",
    f"/repository/docker/V2/{REPOSITORY}/blobs/{BAD.digest}",
    "/repository/docker/v1/images/0f3c/layer",
    "/v1/images/0f3c/json",
    f"/,/v2/{REPOSITORY}/manifests/{BAD.digest}",
    f"/v2/{REPOSITORY}/tags/list,/v2/{REPOSITORY}/manifests/{BAD.digest}",
    # Java's servers cut a segment at a semicolon.
    f"/v2;a/{REPOSITORY}/manifests/{BAD.digest}",
    f"/v2/{REPOSITORY}/manifests/{BAD.digest}/referrers/..;/",
    f"/v2/{REPOSITORY}/manifests;a/{BAD.digest}",
    # A header that came twice, whose first value has a query.
    f"/v2/?a,/v2/{REPOSITORY}/manifests/{BAD.digest}",
    f"/v2/_catalog?n=1, /v2/{REPOSITORY}/manifests/{BAD.digest}",
    "*",
    "",
]


@pytest.mark.usefixtures("known")
def test_a_path_that_could_be_read_in_two_ways_is_refused(pull: Pull) -> None:
    for uri in AMBIGUOUS:
        answer = pull(uri)
        assert answer.status_code == 403, uri
        assert answer.json["errors"][0]["code"] == "DENIED", uri


def test_an_unknown_method_is_refused(pull: Pull) -> None:
    for method in ("get", "TRACE", "CONNECT", "PROPFIND"):
        assert pull(manifest(CLEAN.digest), method).status_code == 403, method


@pytest.mark.usefixtures("known")
def test_a_clients_own_headers_do_not_count(pull: Pull, app: OpenAPI, make_token: Callable[..., str]) -> None:
    """Traefik and Caddy send a client's headers along with their own."""
    good, bad = manifest(CLEAN.digest), manifest(BAD.digest)
    assert pull(good, X_Forwarded_Uri=bad).status_code == 403
    assert pull(bad, X_Forwarded_Method="PUT").status_code == 403
    assert pull(good, X_Forwarded_Uri=good, X_Forwarded_Method="GET").status_code == 200
    token = make_token("pull")
    headers = {"X-Forwarded-Uri": bad, "X-Forwarded-Method": "GET", "Authorization": "Basic Y2k6cGFzcw=="}
    answer = app.test_client().get(f"{PATH}/{token}?registry={HOST}", headers=headers)
    assert (answer.status_code, answer.json["errors"][0]["code"]) == (403, "DENIED")
    assert app.test_client().get(f"{PATH}/{token}x", headers=headers).status_code == 401
    assert app.test_client().get(f"{PATH}/{token}").status_code == 403, "nothing says what is asked for"
    lone = {"X-Forwarded-Uri": good, "X-Original-Method": "PUT"}  # of a proxy that sets no method
    assert app.test_client().get(f"{PATH}/{token}", headers=lone).status_code == 403
    for name in ("X-HTTP-Method-Override", "X-Http-Method", "X-METHOD-OVERRIDE"):
        pushing = {"X-Original-URI": bad, "X-Original-Method": "POST", name: "GET"}
        assert app.test_client().get(f"{PATH}/{token}", headers=pushing).status_code == 403, name
    lone = {"X-Original-URI": good, "X-Forwarded-Method": "OPTIONS"}
    assert app.test_client().get(f"{PATH}/{token}", headers=lone).status_code == 403


@pytest.mark.usefixtures("known")
def test_as_envoy_asks(app: OpenAPI, make_token: Callable[..., str]) -> None:
    client, base = app.test_client(), f"{PATH}/{make_token('pull')}"
    assert client.get(f"{base}/{HOST}{manifest(CLEAN.digest)}").status_code == 200
    assert client.head(f"{base}/{HOST}{manifest(CLEAN.digest)}").status_code == 200
    assert client.get(f"{base}/{HOST},production{manifest(BAD.digest)}").status_code == 403
    assert client.put(f"{base}/{HOST}{manifest('1')}").status_code == 200
    layer = BAD.images[0].image.layers[0].digest
    assert client.get(f"{base}/{HOST},,strict{blob(layer)}").status_code == 403
    assert client.get(f"{base}/{HOST}{blob(layer)}").status_code == 200
    assert client.get(f"{base}/elsewhere.example{manifest(CLEAN.digest)}").status_code == 403
    # Its address is unescaped on the way here. Servers behind a registry's own proxy resolve "..", after the "?" too.
    for hidden in (
        f"/v2/%3F/..{manifest(BAD.digest)[3:]}",
        f"/v2/%3f/%2e%2e{manifest(BAD.digest)[3:]}",
        f"/%3F/..{manifest(BAD.digest)}",
        f"/%23/..{manifest(BAD.digest)}",
        f"{manifest(CLEAN.digest)}%3F/../{BAD.digest}",
    ):
        assert client.get(f"{base}/{HOST}{hidden}").status_code == 403, hidden


@pytest.mark.usefixtures("known")
def test_the_registry_is_the_one_that_the_gate_is_set_up_for(pull: Pull, database: Database) -> None:
    assert pull(manifest(CLEAN.digest), query="?registry=localhost:5000").status_code == 200, "an alias"
    assert pull(manifest(CLEAN.digest), query="?registry=unknown.example").status_code == 403
    with database.session() as session:
        registries.add(session, "second.example", KEY)
    answer = pull(manifest(CLEAN.digest), Host=HOST)
    assert answer.status_code == 403, "a client may send any host"
    assert "?registry=HOST" in answer.json["errors"][0]["message"]
    assert pull(manifest(CLEAN.digest), query=f"?registry={HOST}").status_code == 200


def test_our_own_scanner_pulls_what_is_not_known_yet(pull: Pull) -> None:
    now = time.time()
    assert pull(manifest("1"), X_Dockwarden_Pull=pull_proof.make(KEY.reveal(), HOST, now)).status_code == 200
    for forged in (
        pull_proof.make(KEY.reveal(), "another.example", now),
        pull_proof.make("another key, just as long as it must be", HOST, now),
        pull_proof.make(KEY.reveal(), HOST, now - 3600),
        pull_proof.make(KEY.reveal(), HOST, now + 86400),
        "",
        "1.2",
        f"{10**11}.{'0' * 64}",
    ):
        assert pull(manifest("1"), X_Dockwarden_Pull=forged).status_code == 403, forged


def test_a_proof_holds_while_the_key_is_changed() -> None:
    made = pull_proof.make("the former key", HOST, 1000)
    assert pull_proof.holds(["the new key", "the former key"], HOST, made, 1000)
    assert not pull_proof.holds(["the new key"], HOST, made, 1000)


@pytest.mark.usefixtures("known")
def test_pulls_are_shown_and_denials_audited(pull: Pull, app: OpenAPI, database: Database) -> None:
    pull(manifest(CLEAN.digest))
    for _ in range(3):
        pull(manifest(BAD.digest), X_Real_IP="192.0.2.7")
    pull(blob(CLEAN.images[0].image.layers[0].digest))
    app.extensions["doors_recorder"].flush()
    with database.read() as session:
        rows = admissions.list_reviews(session).items
        entries = audit.list_entries(session, audit.Filter(action="pull.deny")).items
    assert [(row.door, row.outcome) for row in rows] == [("registry", "denied")] * 3 + [("registry", "allowed")]
    assert (rows[0].namespace, rows[0].name, rows[0].user) == (HOST, f"{REPOSITORY}@{BAD.digest}", "192.0.2.7")
    assert len(entries) == 1
    assert entries[0].detail["times"] == 3


def test_a_database_that_is_away_denies(pull: Pull, app: OpenAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*asked: Any) -> None:
        raise RemoteError("the database does not answer", reason="db_unavailable")

    monkeypatch.setattr(gate, "current_decision", away)
    answer = pull(manifest(CLEAN.digest))
    assert answer.status_code == 403
    assert "the database does not answer" in answer.json["errors"][0]["message"]


def test_an_error_of_ours_denies(pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use_cases, "decide", lambda *asked, **more: 1 / 0)
    assert pull(manifest(CLEAN.digest)).status_code == 403


def test_a_project_that_the_token_does_not_see(
    app: OpenAPI, make_token: Callable[..., str], known: None, database: Database
) -> None:
    headers = {"Authorization": f"Bearer {make_token('pull', projects=['elsewhere'])}"}
    headers |= {"X-Original-URI": manifest(CLEAN.digest), "X-Original-Method": "GET"}
    assert app.test_client().get(f"{PATH}?registry={HOST}", headers=headers).status_code == 403


_PIECES = st.sampled_from(
    ["v2", "V2", "", ".", "..", "shop", "cart", "manifests", "blobs", "uploads", "1", BAD.digest, "%2f", "%2e"]
)


@given(st.lists(_PIECES, max_size=9), st.sampled_from(["GET", "HEAD"]))
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_no_path_to_a_manifest_is_taken_for_something_else(pieces: list[str], method: str) -> None:
    """Whatever normalises to a manifest's path is judged as that manifest, or refused."""
    uri = "/" + "/".join(pieces)
    try:
        found = use_cases.parse(method, uri)
    except UsageError:
        return
    plain = uri.replace("%2f", "/").replace("%2e", ".").lower()
    if "/manifests/" in f"{plain}/" and plain.strip("/").startswith("v2/"):
        assert (
            found.kind is not use_cases.Kind.OTHER or "_trust" in plain or plain.rstrip("/").endswith("/manifests")
        ), uri
