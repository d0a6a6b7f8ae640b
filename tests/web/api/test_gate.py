"""The gate: a decision in force is answered at once; a tag is never believed; what is unknown never passes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from scanner.advisories import database as advisories
from scanner.config import Settings
from scanner.errors import EngineError, RemoteError, UsageError
from scanner.model.finding import Severity, Signer, TrustStatus, Verification
from scanner.model.reference import Digest
from scanner.model.scan import ScanReport, ScanRequest
from scanner.scanning.pipeline import local_services, run
from scanner.store import accounts, gate, policies, projects, scans
from scanner.store.schema import verdict
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import KEY, Api, Worker
from web import throttle

REPOSITORY = make.REPOSITORY
CLEAN = make.report("clean", packages=[make.package(1)])
BAD = make.report(
    "bad",
    packages=[make.package(1)],
    vulnerabilities=[make.vulnerability(1, make.package(1), severity=Severity.CRITICAL)],
)
POLICY = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: %(name)s}
match: {images: ["**"], environments: [%(environments)s]}
incomplete: %(incomplete)s
advisories: {max_age: 5200w}
rules:
  - id: no-criticals
    vulnerability: {severity: [critical]}
    action: %(action)s
"""


def policy(name: str = "all", environments: str = "", action: str = "deny", incomplete: str = "deny") -> str:
    return POLICY % {"name": name, "environments": environments, "action": action, "incomplete": incomplete}


@pytest.fixture(autouse=True)
def in_force(database: Database) -> None:
    """One simple policy, so that these tests do not depend on the default one."""
    with database.session() as session:
        policies.put(session, "all", policy(), "test")


def pinned(found: object = CLEAN) -> str:
    return f"{REPOSITORY}@{found.digest}"  # type: ignore[attr-defined]


def decided(api: Api, worker: Worker, found: object = CLEAN) -> None:
    assert api("POST", "/scans", {"image": pinned(found)}).status_code == 202
    worker.finish(found)  # type: ignore[arg-type]


def test_a_decided_digest_is_answered_at_once(api: Api, worker: Worker) -> None:
    decided(api, worker)
    answer = api("POST", "/gate", {"image": pinned()})
    assert answer.status_code == 200
    assert answer.json["verdict"] == "allow"
    assert answer.json["digest"] == CLEAN.digest
    assert answer.json["policy"] == "all"


def test_a_violation_denies_and_says_why_and_what_to_do(api: Api, worker: Worker) -> None:
    decided(api, worker, BAD)
    answer = api("POST", "/gate", {"image": pinned(BAD)}).json
    assert answer["verdict"] == "deny"
    assert answer["undecided"] is False
    assert [(reason["rule"], reason["kind"]) for reason in answer["reasons"]] == [("no-criticals", "violation")]
    assert answer["changes"][0]["action"] == "upgrade"


def test_a_decided_digest_costs_one_query(app: OpenAPI, database: Database, api: Api, worker: Worker) -> None:
    """Asked over the driver's own connection: SQLite itself tells what is executed, SQLAlchemy what goes past it."""
    decided(api, worker)
    api("POST", "/gate", {"image": pinned()})  # notes the token's use, once a minute
    statements: list[str] = []
    listen = (database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    sa.event.listen(*listen)
    connection = app.extensions["dockwarden"].gate.cursor().connection
    connection.set_trace_callback(statements.append)
    try:
        assert api("POST", "/gate", {"image": pinned()}).json["verdict"] == "allow"
    finally:
        sa.event.remove(*listen)
        connection.set_trace_callback(None)
    assert len(statements) == 1, statements


def test_an_unknown_digest_is_scanned_and_not_allowed_meanwhile(api: Api, worker: Worker) -> None:
    answer = api("POST", "/gate", {"image": pinned()})
    assert answer.status_code == 202
    assert answer.headers["Retry-After"] == "2"
    assert answer.json["state"] == "queued"
    assert answer.headers["Location"] == f"/api/v1/scans/{answer.json['scan']}"
    assert worker.claim().request.lane == "gate"
    again = api("POST", "/gate", {"image": pinned()})
    assert again.json["scan"] == answer.json["scan"]


def test_a_caller_that_asks_for_many_unknown_images_does_not_fill_the_queue(
    limited: OpenAPI, database: Database, make_token: Callable[..., str]
) -> None:
    first, second = make_token("gate"), make_token("gate")
    stopped = limited.extensions["dockwarden"].throttle

    def ask(tag: str, token: str) -> TestResponse:
        question, headers = {"image": f"{REPOSITORY}:{tag}"}, {"Authorization": f"Bearer {token}"}
        return limited.test_client().post("/api/v1/gate", json=question, headers=headers)

    assert ask("1", first).status_code == 202
    (bucket,) = [source for name, source in stopped._buckets if name == "door-scans"]
    stopped.take("door-scans", bucket, throttle.SCANS, throttle.SCANS.burst - 1)
    refused = ask("2", first)
    assert (refused.status_code, refused.json["reason"]) == (429, "rate_limited")
    assert int(refused.headers["Retry-After"]) >= 1
    assert ask("1", first).status_code == 202, "it is no new scan"
    with database.read() as session:
        assert [each.request.target for each in scans.list_scans(session, None).items] == [f"{REPOSITORY}:1"]
    assert ask("2", second).status_code == 202, "others are scanned as before"
    stopped.take("door-scans-all", "gate", throttle.DOOR_SCANS, throttle.DOOR_SCANS.burst - 2)
    assert (ask("3", second).status_code, ask("1", second).status_code) == (429, 202)


def test_it_waits_for_the_scan(api: Api, worker: Worker) -> None:
    thread = threading.Timer(0.3, lambda: worker.finish(CLEAN))
    thread.start()
    answer = api("POST", "/gate", {"image": f"{REPOSITORY}:1", "wait_seconds": 20})
    thread.join()
    assert answer.status_code == 200
    assert answer.json["verdict"] == "allow"
    assert answer.json["digest"] == CLEAN.digest


def test_a_tag_is_resolved_although_its_last_image_is_decided(api: Api, worker: Worker) -> None:
    api("POST", "/scans", {"image": f"{REPOSITORY}:1"})
    with worker.database.session() as session:
        session.execute(sa.text("UPDATE scan SET created_epoch = created_epoch - 61"))
    old = worker.finish(CLEAN)
    answer = api("POST", "/gate", {"image": f"{REPOSITORY}:1"})
    assert answer.status_code == 202
    assert answer.json["scan"] != old.scan_id


def test_whoever_asks_again_for_a_tag_gets_the_scan_that_just_ended(api: Api, worker: Worker) -> None:
    assert api("POST", "/gate", {"image": f"{REPOSITORY}:1"}).status_code == 202
    worker.finish(BAD)
    assert api("POST", "/gate", {"image": f"{REPOSITORY}:1"}).json["verdict"] == "deny"


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_scan_that_failed_denies_undecided(api: Api, worker: Worker, seconds: int) -> None:
    api("POST", "/gate", {"image": pinned()})
    worker.fail(UsageError("registry.example.com is not a configured registry", reason="registry_not_configured"))
    answer = api("POST", "/gate", {"image": pinned(), "wait_seconds": seconds})
    assert answer.status_code == 200
    assert (answer.json["verdict"], answer.json["undecided"]) == ("deny", True)
    assert answer.json["reasons"][0]["slug"] == "registry_not_configured"


def test_a_failed_scan_is_told_once(api: Api, worker: Worker) -> None:
    first = api("POST", "/gate", {"image": f"{REPOSITORY}:1"}).json["scan"]
    worker.fail(RemoteError("down"))
    assert api("POST", "/gate", {"image": f"{REPOSITORY}:1"}).json["undecided"]
    again = api("POST", "/gate", {"image": f"{REPOSITORY}:1"})
    assert (again.status_code, again.json["scan"] != first) == (202, True), "its cause may be gone"
    worker.finish(CLEAN)
    assert api("POST", "/gate", {"image": f"{REPOSITORY}:1"}).json["verdict"] == "allow"


def test_a_failed_scan_that_was_waited_for_is_told_once(api: Api, worker: Worker) -> None:
    thread = threading.Timer(0.3, lambda: worker.fail(RemoteError("down")))
    thread.start()
    assert api("POST", "/gate", {"image": f"{REPOSITORY}:1", "wait_seconds": 20}).json["undecided"]
    thread.join()
    assert api("POST", "/gate", {"image": f"{REPOSITORY}:1"}).status_code == 202


@pytest.mark.parametrize("target", ["tag", "digest"])
def test_one_platform_of_an_index_decides_nothing_about_it(api: Api, worker: Worker, target: str) -> None:
    whole = replace(
        BAD, subject=replace(BAD.subject, digest=Digest.of(b"an index")), images=(*BAD.images, *CLEAN.images)
    )
    image = pinned(whole) if target == "digest" else f"{REPOSITORY}:1"
    api("POST", "/scans", {"image": image})
    worker.finish(whole)
    api("POST", "/scans", {"image": image, "platform": "linux/arm64"})
    worker.finish(replace(whole, images=CLEAN.images))
    assert api("POST", "/gate", {"image": pinned(whole)}).json["verdict"] == "deny"
    answer = api("POST", "/gate", {"image": image})
    assert answer.json["verdict"] == "deny"
    assert answer.json["digest"] == whole.digest


def test_a_failed_rescan_does_not_take_the_decision_away(api: Api, worker: Worker) -> None:
    decided(api, worker)
    api("POST", "/scans", {"image": pinned(), "force": True})
    worker.fail(RemoteError("down"))
    assert api("POST", "/gate", {"image": pinned()}).json["verdict"] == "allow"


def test_a_decision_that_time_has_passed_over_is_made_anew(api: Api, worker: Worker, database: Database) -> None:
    decided(api, worker)
    before = api("POST", "/gate", {"image": pinned()}).json["decided_at"]
    with database.session() as session:
        session.execute(verdict.update().values(valid_until=1.0))
    after = api("POST", "/gate", {"image": pinned()}).json
    assert after["verdict"] == "allow"
    assert after["decided_at"] > before
    assert len(api("GET", f"/images/{CLEAN.digest}/decisions").json["items"]) == 2


def test_signatures_verified_too_long_ago_are_verified_anew(api: Api, worker: Worker, database: Database) -> None:
    """Neither believed nor held against the image: a scan is asked for."""
    text = policy("signed").replace("vulnerability: {severity: [critical]}", "signature: {scheme: notary-v1}")
    with database.session() as session:
        policies.put(session, "signed", text, "test")

    def signed(age: timedelta) -> ScanReport:
        answer = Verification(
            "notary-v1",
            TrustStatus.VERIFIED,
            CLEAN.digest,
            signers=(Signer("alice"),),
            checked_at=datetime.now(UTC) - age,
        )
        return replace(CLEAN, images=tuple(replace(image, verifications=(answer,)) for image in CLEAN.images))

    def scanned(age: timedelta) -> None:  # by tag: who asks by digest is not told of the scan of a moment ago
        assert api("POST", "/scans", {"image": f"{REPOSITORY}:1", "force": True}).status_code == 202
        worker.finish(signed(age))

    scanned(timedelta(hours=1))
    fresh = api("POST", "/gate", {"image": pinned()})
    assert (fresh.status_code, fresh.json["verdict"]) == (200, "allow")
    assert fresh.json["valid_until"]
    assert fresh.json["reasons"][0]["kind"] == "satisfied"

    scanned(timedelta(days=2))
    stale = api("POST", "/gate", {"image": pinned()})
    assert stale.status_code == 202, "whoever asks by digest gets a new scan, not a denial"
    worker.finish(signed(timedelta()))
    assert api("POST", "/gate", {"image": pinned()}).json["verdict"] == "allow"


def test_a_changed_policy_decides_at_the_next_question(api: Api, worker: Worker) -> None:
    decided(api, worker, BAD)
    assert api("POST", "/gate", {"image": pinned(BAD)}).json["verdict"] == "deny"
    tag = api("GET", "/policies/all").headers["ETag"]
    written = api("PUT", "/policies/all", {"text": policy(action="warn")}, headers={"If-Match": tag})
    assert written.status_code == 200
    answer = api("POST", "/gate", {"image": pinned(BAD)}).json
    assert (answer["verdict"], answer["policy_version"]) == ("warn", 2)


def test_an_environment_selects_its_policies(api: Api, worker: Worker) -> None:
    decided(api, worker, BAD)
    tag = api("GET", "/policies/all").headers["ETag"]
    assert api("PUT", "/policies/all", {"text": policy(action="warn")}, headers={"If-Match": tag}).status_code == 200
    assert api("PUT", "/policies/strict", {"text": policy("strict", "production")}).status_code == 201
    verdicts = {
        environment: api("POST", "/gate", {"image": pinned(BAD), "environment": environment}).json
        for environment in ("", "production", "nobody-named-it")
    }
    assert {name: answer["verdict"] for name, answer in verdicts.items()} == {
        "": "warn",
        "production": "deny",
        "nobody-named-it": "warn",
    }
    assert {name: answer["environment"] for name, answer in verdicts.items()} == {name: name for name in verdicts}


def test_a_digest_known_under_another_name_is_not_known_under_this_one(api: Api, worker: Worker) -> None:
    decided(api, worker)
    answer = api("POST", "/gate", {"image": f"registry.example.com/other/name@{CLEAN.digest}"})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    "image", ["", "Bad/Name", "oci:/etc", "archive:/etc/passwd", "host/x@sha256:12", "-v", "a b", "x" * 2000]
)
def test_what_is_no_reference_is_refused(api: Api, image: str) -> None:
    answer = api("POST", "/gate", {"image": image})
    assert answer.status_code == 422
    assert answer.json["reason"] in ("bad_reference", "invalid")


def test_a_name_that_looks_like_a_local_target_is_a_repository(api: Api, worker: Worker) -> None:
    """``docker:27`` is docker.io/library/docker:27 to a server, never the engine of the machine that it runs on."""
    assert api("POST", "/gate", {"image": "docker:27"}).status_code == 202
    assert worker.claim().request.target == "docker.io/library/docker:27"


def test_waiting_is_bounded_for_all_together(app: OpenAPI, api: Api) -> None:
    waiters = app.extensions["dockwarden"].waiters
    taken = 0
    while waiters.acquire(blocking=False):
        taken += 1
    started = time.monotonic()
    answer = api("POST", "/gate", {"image": pinned(), "wait_seconds": 120})
    for _ in range(taken):
        waiters.release()
    assert answer.status_code == 202
    assert taken == 8
    assert time.monotonic() - started < 60


# Who may ask


def test_a_gate_token_gates_and_reads_nothing(call: Callable[..., Api], api: Api, worker: Worker) -> None:
    decided(api, worker)
    gate = call("gate")
    assert gate("POST", "/gate", {"image": pinned()}).status_code == 200
    assert gate("GET", f"/images/{CLEAN.digest}").status_code == 403
    assert call("read")("POST", "/gate", {"image": pinned()}).status_code == 403


@pytest.mark.parametrize("why", ["none", "wrong", "expired", "revoked", "scheme"])
def test_who_may_not_is_told_nothing(app: OpenAPI, api: Api, worker: Worker, database: Database, why: str) -> None:
    decided(api, worker)
    with database.session() as session:
        ends = datetime.now(UTC) - timedelta(seconds=1) if why == "expired" else None
        token, text = accounts.create_token(session, "t", ["gate"], KEY, expires_at=ends)
        if why == "revoked":
            accounts.revoke_token(session, token.id)
    headers = {
        "none": {},
        "wrong": {"Authorization": f"Bearer {text.reveal()}x"},
        "scheme": {"Authorization": f"Basic {text.reveal()}"},
    }.get(why, {"Authorization": f"Bearer {text.reveal()}"})
    for image in (pinned(), f"{REPOSITORY}:1", "not a reference"):
        answer = app.test_client().post("/api/v1/gate", json={"image": image}, headers=headers)
        assert answer.status_code == 401
        assert CLEAN.digest not in answer.text
    for body, media_type in (("{", "application/json"), ("x", "text/plain")):
        answer = app.test_client().post("/api/v1/gate", data=body, content_type=media_type, headers=headers)
        assert answer.status_code == 401


def test_a_disabled_owners_token_is_dead_at_once(app: OpenAPI, api: Api, worker: Worker, database: Database) -> None:
    decided(api, worker)
    with database.session() as session:
        user = accounts.create_user(session, "dev", "a long password", "developer")
        projects.add_member(session, "default", user.id)
        text = accounts.create_token(session, "t", ["gate"], KEY, owner_id=user.id)[1]
    caller = Api(app.test_client(), text.reveal())
    assert caller("POST", "/gate", {"image": pinned()}).status_code == 200
    with database.session() as session:
        accounts.set_disabled(session, user.id, True)
    assert caller("POST", "/gate", {"image": pinned()}).status_code == 401


def test_another_projects_decision_is_not_there(
    call: Callable[..., Api], api: Api, worker: Worker, database: Database
) -> None:
    decided(api, worker)
    with database.session() as session:
        projects.create(session, "other")
    other = call("gate", projects=["other"])
    assert other("POST", "/gate", {"image": pinned(), "project": "default"}).status_code == 404
    for more in ({}, {"project": "other"}):
        pending = other("POST", "/gate", {"image": pinned(), **more})
        assert pending.status_code == 202
    assert worker.claim().request.project == "other"  # where that registry is not configured


def test_a_body_that_is_not_understood(api: Api, worker: Worker) -> None:
    decided(api, worker)
    post = api.client.post
    headers = {"Authorization": f"Bearer {api.token}"}
    cases = {
        415: [("image=x", "application/x-www-form-urlencoded"), ("{}", "text/plain")],
        400: [("{", "application/json"), ("", "application/json"), ('{"image":"a","image":"b"}', "application/json")],
        422: [
            ("[]", "application/json"),
            ('"{}"', "application/json"),
            ("{}", "application/json"),
            ("null", "application/json"),
        ],
    }
    for status, bodies in cases.items():
        for body, media_type in bodies:
            answer = post("/api/v1/gate", data=body, content_type=media_type, headers=headers)
            assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), body
    for wrong in ({"wait_seconds": 121}, {"wait_seconds": True}, {"wait_seconds": "1"}, {"environment": 7}):
        assert api("POST", "/gate", {"image": pinned(), **wrong}).status_code == 422, wrong
    unknown = api("POST", "/gate", {"image": pinned(), "verdict": "allow"})
    assert unknown.status_code == 422
    assert unknown.json["errors"][0]["pointer"] == "/verdict"


def test_a_workload_nobody_reads_is_refused(api: Api, worker: Worker) -> None:
    decided(api, worker)
    answer = api("POST", "/gate", {"image": pinned(), "workload": "no such document"})
    assert answer.status_code == 422
    assert answer.json["reason"] == "bad_workload"


def test_what_is_no_image_is_undecided_and_is_not_scanned_again_and_again(
    api: Api, worker: Worker, database: Database
) -> None:
    """A signature or a chart: nobody failed, and nothing may be shipped because of it."""
    digest = make.report("artifact").digest
    image = f"{REPOSITORY}@{digest}"
    asked = api("POST", "/gate", {"image": image})
    held = worker.claim()
    with database.session() as session:
        scans.finish_without_image(session, held, digest, "not an image manifest: a Helm chart")
    for _ in range(2):
        answer = api("POST", "/gate", {"image": image})
        assert answer.status_code == 200
        assert (answer.json["verdict"], answer.json["undecided"]) == ("deny", True)
        (reason,) = answer.json["reasons"]
        assert (reason["slug"], reason["message"]) == ("not_an_image", "not an image manifest: a Helm chart")
    shown = api("GET", f"/scans/{asked.json['scan']}").json
    assert (shown["state"], shown["outcome"], shown["reason"]) == ("done", "not_an_image", "not_an_image")
    assert len(api("GET", "/scans").json["items"]) == 1


def test_evidence_older_than_the_policy_allows_is_gathered_again(api: Api, worker: Worker, database: Database) -> None:
    decided(api, worker)
    assert api("POST", "/gate", {"image": pinned()}).json["verdict"] == "allow"
    with database.session() as session:
        policies.put(session, "all", policy().replace("rules:", "evidence: {max_age: 0s}\nrules:"), "test")
        gate.invalidate(session)
    answer = api("POST", "/gate", {"image": pinned()})
    assert (answer.status_code, answer.json["state"]) == (202, "queued"), "a new scan would tell"
    worker.finish(CLEAN)
    with database.session() as session:
        policies.put(session, "all", policy().replace("rules:", "evidence: {max_age: 1h}\nrules:"), "test")
        gate.invalidate(session)
    assert api("POST", "/gate", {"image": pinned()}).json["verdict"] == "allow", "the same evidence was found again"


@pytest.mark.parametrize("format_", ["sarif", "junit", "gitlab", "markdown"])
def test_a_pipeline_gets_its_report_with_the_answer(api: Api, worker: Worker, format_: str) -> None:
    decided(api, worker, BAD)
    answer = api("POST", "/gate", {"image": pinned(BAD), "reports": [format_]})
    assert answer.status_code == 200
    assert answer.json["verdict"] == "deny"
    assert list(answer.json["reports"]) == [format_]
    assert "no-criticals" in answer.json["reports"][format_] or format_ in ("sarif", "gitlab")
    assert make.package(1).name in answer.json["reports"][format_] or format_ == "markdown"


def test_a_report_judges_the_workload_of_the_question_too(api: Api, worker: Worker) -> None:
    decided(api, worker)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    pod["spec"] = {"containers": [{"name": "c", "image": pinned(), "securityContext": {"privileged": True}}]}
    question = {"image": pinned(), "workload": pod, "reports": ["json"]}
    answer = api("POST", "/gate", question).json
    decision = json.loads(answer["reports"]["json"])
    assert decision["verdict"] == answer["verdict"]


def test_a_scan_that_failed_is_a_failed_report(api: Api, worker: Worker) -> None:
    scan = api("POST", "/gate", {"image": pinned()}).json["scan"]
    worker.fail(RemoteError("the registry is away", reason="registry_unreachable"))
    answer = api("POST", "/gate", {"image": pinned(), "wait_seconds": 5, "reports": ["junit", "markdown", "spdx"]}).json
    assert answer["undecided"] is True, scan
    assert 'errors="1"' in answer["reports"]["junit"]
    assert "could not be decided" in answer["reports"]["markdown"]
    assert answer["reports"]["spdx"] == ""


def test_an_unknown_report_format_is_named_before_anything_is_scanned(api: Api, worker: Worker) -> None:
    answer = api("POST", "/gate", {"image": pinned(), "reports": ["sariff"]})
    assert answer.status_code == 400
    assert "sariff" in answer.json["detail"]
    assert "sarif" in answer.json["hint"]
    assert api("GET", "/scans").json["items"] == []


# The other images that a workload names


def pod(**more: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": more}


OTHER = "registry.example.com/other/tool"
OTHER_BAD = replace(BAD, repository=OTHER)


def other(found: ScanReport) -> str:
    return f"{OTHER}@{found.digest}"


def decided_other(api: Api, worker: Worker, found: ScanReport) -> str:
    image = other(found)
    assert api("POST", "/scans", {"image": image}).status_code == 202
    worker.finish(replace(found, repository=OTHER))
    return image


def app(**more: object) -> dict[str, object]:
    return {"name": "app", "image": pinned(), **more}


def workloads_naming(image: str) -> dict[str, object]:
    """Every way to start or mount another image beside the one that is asked about."""
    mounted = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    volume = [{"name": "v", "image": {"reference": image}}]
    task = {"family": "t", "containerDefinitions": [app(memory=1), {"name": "log", "image": image, "memory": 1}]}
    mount = {"type": "image", "source": image, "target": "/v"}
    return {
        "init": pod(initContainers=[{"name": "setup", "image": image}], containers=[app()]),
        "sidecar": pod(initContainers=[{"name": "s", "image": image, "restartPolicy": "Always"}], containers=[app()]),
        "beside": pod(containers=[app(), {"name": "log", "image": image}]),
        "ephemeral": pod(containers=[app()], ephemeralContainers=[{"name": "debug", "image": image}]),
        "volume": pod(containers=[app(**mounted)], volumes=volume),
        "unmounted volume": pod(containers=[app()], volumes=volume),
        "mounted by another": pod(containers=[app(), {"name": "b", "image": pinned(), **mounted}], volumes=volume),
        "compose": {"services": {"app": {"image": pinned(), "volumes": [mount]}}},
        "docker": [
            {
                "Name": "/app",
                "Config": {"Image": pinned()},
                "HostConfig": {"Mounts": [{"Type": "image", "Source": image, "Target": "/v"}]},
                "State": {},
            }
        ],
        "ecs": task,
    }


@pytest.mark.parametrize("way", workloads_naming("x"))
def test_every_image_that_a_workload_names_is_judged(api: Api, worker: Worker, way: str) -> None:
    decided(api, worker)
    image = decided_other(api, worker, OTHER_BAD)
    question = {"image": pinned(), "workload": json.dumps(workloads_naming(image)[way])}
    answer = api("POST", "/gate", question).json
    assert (answer["verdict"], answer["undecided"]) == ("deny", False)
    (reason,) = [each for each in answer["reasons"] if each["rule"] == "workload-image"]
    assert image in reason["message"]
    assert "critical" in reason["message"].lower(), "the reason of the other image is there"
    (named,) = answer["workload_images"]
    assert (named["image"], named["verdict"]) == (image, "deny")
    assert any(image in each["detail"] for each in answer["changes"])
    report = api("POST", "/gate", {**question, "reports": ["markdown"]}).json["reports"]["markdown"]
    assert "workload-image" in report


def test_an_image_of_the_workload_that_was_never_scanned_is_pending(api: Api, worker: Worker) -> None:
    decided(api, worker)
    image = other(CLEAN)
    question = {"image": pinned(), "workload": pod(initContainers=[{"name": "i", "image": image}], containers=[app()])}
    asked = api("POST", "/gate", question)
    assert asked.status_code == 202
    assert api("GET", f"/scans/{asked.json['scan']}").json["image"] == image
    worker.finish(replace(CLEAN, repository=OTHER))
    answer = api("POST", "/gate", question).json
    assert (answer["verdict"], answer["workload_images"][0]["verdict"]) == ("allow", "allow")


def test_an_image_of_the_workload_that_cannot_be_scanned_is_undecided(api: Api, worker: Worker) -> None:
    decided(api, worker)
    image = other(CLEAN)
    question = {"image": pinned(), "workload": pod(containers=[app(), {"name": "i", "image": image}])}
    assert api("POST", "/gate", question).status_code == 202
    worker.fail(UsageError("no such image", reason="not_found"))
    answer = api("POST", "/gate", question).json
    assert (answer["verdict"], answer["undecided"]) == ("deny", True)
    unreadable = pod(containers=[app(), {"name": "i", "image": "Not A Reference"}])
    answer = api("POST", "/gate", {"image": pinned(), "workload": unreadable}).json
    assert (answer["verdict"], answer["undecided"]) == ("deny", True)


def test_other_services_of_a_file_are_not_part_of_the_workload(api: Api, worker: Worker) -> None:
    decided(api, worker)
    image = decided_other(api, worker, OTHER_BAD)
    file = {"services": {"app": {"image": pinned()}, "other": {"image": image}}}
    assert api("POST", "/gate", {"image": pinned(), "workload": file}).json["verdict"] == "allow"


def test_another_digest_of_the_same_repository_is_another_image(api: Api, worker: Worker) -> None:
    decided(api, worker)
    decided(api, worker, BAD)
    file = pod(containers=[app(), {"name": "old", "image": pinned(BAD)}])
    answer = api("POST", "/gate", {"image": pinned(), "workload": file}).json
    assert (answer["verdict"], answer["workload_images"][0]["image"]) == ("deny", pinned(BAD))
    released = pod(containers=[{"name": "app", "image": f"{REPOSITORY}:of-the-last-release"}])
    answer = api("POST", "/gate", {"image": pinned(), "workload": released}).json
    assert (answer["verdict"], answer["workload_images"]) == ("allow", [])


HOSTILE = Path(__file__).parents[2] / "data/hostile/reports"
# How the engine that printed a report ended, and what the gate says of a report that is not believed.
ENDED = {"E19_ok_exit2.json": "exit 2", "E20_ok_sigkill.json": "kill -9 $$"}
REFUSED = {
    "E01_empty.json": "scanner_output_invalid",
    "E02_truncated.json": "scanner_output_invalid",
    "E05_no_os.json": "nothing_to_scan",
    "E16_deep.json": "scanner_output_invalid",
    "E19_ok_exit2.json": "scanner_failed",
    "E20_ok_sigkill.json": "scanner_oom",
}


def test_a_report_of_a_broken_engine_opens_no_gate(
    api: Api, worker: Worker, settings: Settings, sample_layouts: Path, tmp_path: Path
) -> None:
    """Engines that print the hostile reports, the whole pipeline, the database, and the gate's answer."""
    advisories.import_file(settings, sample_layouts / "advisories")
    engine = tmp_path / "trivy"
    for name in sorted(path.name for path in HOSTILE.iterdir()):
        engine.unlink(missing_ok=True)  # another inode is another binary
        version = 'if [ "$1" = --version ]; then echo "Version: 0.76.0"; exit; fi'
        engine.write_text(f"#!/bin/sh\n{version}\ncat {HOSTILE / name}\n{ENDED.get(name, 'exit 0')}\n")
        engine.chmod(0o755)
        image = f"{REPOSITORY}@{Digest.of(name.encode())}"
        assert api("POST", "/gate", {"image": image}).status_code == 202
        with local_services(replace(settings, trivy=engine)) as services:
            try:
                found = run(ScanRequest(f"oci:{sample_layouts / 'shop/good'}"), services, lambda progress: None)
            except EngineError as error:
                worker.fail(error)
            else:
                worker.finish(replace(found, subject=replace(found.subject, digest=Digest.of(name.encode()))))
        answer = api("POST", "/gate", {"image": image}).get_json()
        assert (answer["verdict"], answer["undecided"]) == ("deny", name != "E13_severity.json"), name
        slugs = {reason["slug"] for reason in answer["reasons"]}
        assert REFUSED.get(name, "nothing_to_scan") in slugs, (name, slugs)


def test_thousands_of_unknown_members_get_a_short_answer(api: Api) -> None:
    answer = api("POST", "/gate", {"image": "registry.example.com/app:1"} | {f"member{n}": n for n in range(3000)})
    assert answer.status_code == 422
    assert len(answer.json["errors"]) == 100
