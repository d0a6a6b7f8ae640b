"""The Harbor scanner adapter: as the specification says, as Harbor's client behaves, and never a clean report of what
is not known.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
import sqlalchemy as sa
import yaml
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from scanner.config import Secret, Settings
from scanner.errors import RemoteError, UsageError
from scanner.model.finding import (
    CVSS,
    CheckResult,
    Evidence,
    Failed,
    Incomplete,
    Severity,
    TrustStatus,
    Verification,
)
from scanner.model.reference import Digest
from scanner.model.scan import ScanReport
from scanner.services import harbor as use_cases
from scanner.store import accounts, admissions, audit, break_glass, gate, harbor, policies, registries, scans
from scanner.store.schema import harbor_scan
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.adapters.test_kubernetes import POLICY
from tests.web.conftest import KEY, Worker
from web import throttle
from web.adapters import harbor as adapter

HOST, REPOSITORY = make.REPOSITORY.split("/", 1)
API = "/adapters/harbor/api/v1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
V1_0 = "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0"
V1_1 = "application/vnd.security.vulnerability.report; version=1.1"
RAW = "application/vnd.scanner.adapter.vuln.report.raw"
SBOM = "application/vnd.security.sbom.report+json; version=1.0"
ERROR = "application/vnd.scanner.adapter.error+json; version=1.0"
ROBOT = "Basic " + base64.b64encode(b"robot$scanner:canary-of-a-robot").decode()
SCHEMAS = Path(__file__).parents[2] / "data" / "schemas"

CLEAN = make.report("clean", packages=[make.package(1)])
BAD = make.report(
    "bad",
    packages=[make.package(1)],
    vulnerabilities=[
        make.vulnerability(
            1,
            make.package(1),
            severity=Severity.CRITICAL,
            cvss=(CVSS("3.1", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8, "nvd"),),
            cwes=("CWE-79",),
            description="one\ntwo\0three",
            references=("javascript:alert(1)", "https://example.com/a|b", "https://example.com/more"),
        ),
        make.vulnerability(2, make.package(1), severity=Severity.LOW),
        make.vulnerability(2, make.package(1), severity=Severity.HIGH, path="usr/lib/another"),
    ],
)


def with_gap() -> ScanReport:
    """Nothing was found, and nothing could have been."""
    (image,) = make.report("gap").images
    engine = replace(image.engines[0], incomplete=(Incomplete("nothing_to_scan", "the engine found no package"),))
    return replace(make.report("gap"), images=(replace(image, engines=(engine,)),))


def hardened_badly() -> ScanReport:
    """No vulnerability, a failed check and a refused signature."""
    (image,) = make.report("root").images
    check = CheckResult("root-user", Failed((Evidence("the image runs as root"),)), Severity.HIGH)
    refused = Verification("cosign", TrustStatus.REFUSED, Digest.of(b"root"), "wrong_key", "signed by another key")
    return replace(make.report("root"), images=(replace(image, checks=(check,), verifications=(refused,)),))


def document(answer: TestResponse) -> Any:
    """The body. Two of the types are JSON without saying so."""
    return orjson.loads(answer.data)


def conforms(value: Any, name: str, version: str = "1.2") -> None:
    """Validate against a schema of the specification's OpenAPI document."""
    spec = yaml.safe_load((SCHEMAS / f"scanner-adapter-openapi-v{version}.yaml").read_text())
    jsonschema_rs.validate({"$ref": f"#/components/schemas/{name}", "components": spec["components"]}, value)


@dataclass(frozen=True)
class Harbor:
    """Calls as Harbor's client makes them."""

    client: FlaskClient
    authorization: dict[str, str]
    api: str = API

    def order(self, found: ScanReport | str, tag: str = "1", **more: Any) -> dict[str, Any]:
        digest = found if isinstance(found, str) else str(found.digest)
        artifact = {"repository": REPOSITORY, "digest": digest, "tag": tag, "mime_type": MANIFEST}
        made = {"registry": {"url": f"https://{HOST}", "authorization": ROBOT}, "artifact": artifact, **more}
        conforms(made, "ScanRequest")
        return made

    def scan(self, document: Any) -> TestResponse:
        data = document if isinstance(document, bytes) else orjson.dumps(document)
        kind = "application/vnd.scanner.adapter.scan.request+json; version=1.0"
        answer: TestResponse = self.client.post(
            f"{self.api}/scan", data=data, content_type=kind, headers=self.authorization
        )
        return answer

    def submit(self, found: ScanReport, **more: Any) -> str:
        answer = self.scan(self.order(found, **more))
        assert answer.status_code == 202, answer.text
        conforms(answer.json, "ScanResponse")
        return str(answer.json["id"])

    def report(self, scan_id: str, accept: str = V1_1, query: str = "") -> TestResponse:
        headers = {**self.authorization, "Accept": accept}
        answer: TestResponse = self.client.get(f"{self.api}/scan/{scan_id}/report{query}", headers=headers)
        return answer

    def findings(self, scan_id: str) -> dict[str, str]:
        """Id -> severity of a finished scan's report."""
        answer = self.report(scan_id)
        assert answer.status_code == 200, answer.text
        return {item["id"]: item["severity"] for item in document(answer)["vulnerabilities"]}


@pytest.fixture(autouse=True)
def in_force(database: Database, registry: registries.RegistryView) -> None:
    with database.session() as session:
        policies.put(session, "cluster", POLICY, "test")
        registries.update(session, registry.id, KEY, harbor="findings", aliases=["core:8080"])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, public_url="https://dockwarden.example.com")


@pytest.fixture
def calling(app: OpenAPI, make_token: Callable[..., str]) -> Callable[..., Harbor]:
    def calling(*scopes: str, **more: Any) -> Harbor:
        token = make_token(*(scopes or ("harbor",)), **more)
        return Harbor(app.test_client(), {"Authorization": f"Bearer {token}"})

    return calling


@pytest.fixture
def caller(calling: Callable[..., Harbor]) -> Harbor:
    return calling()


def set_up_as(database: Database, registry: registries.RegistryView, how: str) -> None:
    with database.session() as session:
        registries.update(session, registry.id, KEY, harbor=how)


# As the specification says


def test_the_metadata_offers_vulnerabilities_and_sboms(caller: Harbor) -> None:
    for asked, version in (("1.0", "1.0"), ("1.1", "1.1")):
        accept = f"application/vnd.scanner.adapter.metadata+json; version={asked}"
        answer = caller.client.get(f"{API}/metadata", headers={**caller.authorization, "Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == f"application/vnd.scanner.adapter.metadata+json; version={version}"
        for schema in ("1.0", "1.1", "1.2"):
            conforms(answer.json, "ScannerAdapterMetadata", schema)
    # Harbor's own rules: a name, vendor and version; and the first capability has to be about vulnerabilities.
    assert all(answer.json["scanner"][member] for member in ("name", "vendor", "version"))
    first, second = answer.json["capabilities"]
    assert V1_1 in first["produces_mime_types"]
    assert second["additional_attributes"]["sbom_media_types"][0] == "application/spdx+json"


def test_a_scan_is_recorded_and_its_report_follows(
    caller: Harbor, worker: Worker, database: Database, app: OpenAPI
) -> None:
    scan_id = caller.submit(BAD)
    waiting = caller.report(scan_id)
    assert waiting.status_code == 302
    assert 0 < int(waiting.headers["Refresh-After"]) <= 127, "Harbor reads it as int8"
    assert "Location" not in waiting.headers
    claim = worker.claim()
    assert claim.request.target == f"{make.REPOSITORY}:1@{BAD.digest}"
    assert (claim.request.lane, claim.request.source) == ("push", "harbor")
    assert caller.report(scan_id).status_code == 302
    worker.finish(BAD, claim)
    answer = caller.report(scan_id)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, V1_1)
    for version in ("1.1", "1.2"):
        conforms(document(answer), "HarborVulnerabilityReport", version)
    assert document(answer)["artifact"] == {"repository": REPOSITORY, "digest": BAD.digest, "tag": "1"}
    assert document(answer)["severity"] == "Critical"
    first = next(item for item in document(answer)["vulnerabilities"] if item["id"] == "CVE-2026-00001")
    assert first["preferred_cvss"]["score_v3"] == 9.8
    assert first["vendor_attributes"]["CVSS"]["nvd"]["V3Score"] == 9.8
    assert first["cwe_ids"] == ["CWE-79"]
    assert first["links"] == ["https://example.com/advisory", "https://example.com/more"]
    assert "\0" not in first["description"]
    twice = [item for item in document(answer)["vulnerabilities"] if item["id"] == "CVE-2026-00002"]
    assert [item["severity"] for item in twice] == ["High"], "Harbor stores one for an id, package and version"
    with database.read() as session:
        actions = [entry.action for entry in audit.list_entries(session).items]
    assert "scan.request" in actions


def test_older_and_raw_reports(caller: Harbor, worker: Worker) -> None:
    scan_id = caller.submit(BAD)
    worker.finish(BAD)
    old = caller.report(scan_id, V1_0)
    conforms(old.json, "HarborVulnerabilityReport", "1.0")
    assert old.headers["Content-Type"] == V1_0
    assert all("vendor_attributes" not in item for item in old.json["vulnerabilities"])
    raw = caller.report(scan_id, RAW)
    assert orjson.loads(raw.data)["report"]["subject"]["digest"] == BAD.digest
    assert caller.report(scan_id, "*/*").headers["Content-Type"] == V1_1
    other = caller.report(scan_id, "application/vnd.example.report; version=9")
    assert (other.status_code, other.headers["Content-Type"]) == (501, ERROR)
    conforms(other.json, "ErrorResponse")


def test_the_type_of_a_report_is_read_as_http_defines_it() -> None:
    for accept, expected in (
        ("Application/Vnd.Security.Vulnerability.Report;Version=1.1", V1_1),
        (f"{V1_0};charset=utf-8", V1_0),
        (V1_0.replace("1.0", '"1.0"'), V1_0),
        (f"{RAW}; version=1.0", RAW),
        (f"{V1_1}; q=0, {SBOM}; q=0.001", SBOM),
        ("text/html, */*; q=0.1", V1_1),
        ("*/*; q=0.000", None),
        ("application/vnd.security.vulnerability.report; version=1.2", None),
        (V1_1.replace(";", ""), None),
    ):
        assert adapter._media_type(accept) == expected, accept


@pytest.mark.parametrize(
    ("media_type", "member"),
    [("application/spdx+json", "spdxVersion"), ("application/vnd.cyclonedx+json", "bomFormat")],
)
def test_sboms(caller: Harbor, worker: Worker, media_type: str, member: str) -> None:
    wanted = {"type": "sbom", "produces_mime_types": [SBOM], "parameters": {"sbom_media_types": [media_type]}}
    scan_id = caller.submit(BAD, enabled_capabilities=[wanted])
    worker.finish(BAD)
    answer = caller.report(scan_id, SBOM, f"?sbom_media_type={media_type.replace('+', '%2B')}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, SBOM)
    conforms(answer.json, "HarborSbomReport")
    assert member in answer.json["sbom"]
    assert answer.json["media_type"] == media_type
    assert answer.json["vendor_attributes"]["dockwarden"]["complete"] is True
    assert caller.report(scan_id, SBOM, f"?sbom_media_type={media_type}").status_code == 200, "not escaped"
    for query in ("", "?sbom_media_type=text/plain"):
        refused = caller.report(scan_id, SBOM, query)
        assert refused.status_code == 400
        conforms(refused.json, "ErrorResponse")


@pytest.mark.parametrize("form", ["Basic", "Bearer", "key"])
def test_each_of_harbors_ways_to_authenticate(app: OpenAPI, make_token: Callable[..., str], form: str) -> None:
    client, token = app.test_client(), make_token("harbor")
    for text, status in ((token, 200), (f"{token}x", 401), ("", 401)):
        basic = "Basic " + base64.b64encode(f"harbor:{text}".encode()).decode()
        forms = {"Basic": ("Authorization", basic), "Bearer": ("Authorization", f"Bearer {text}")}
        name, value = forms.get(form, ("X-ScannerAdapter-API-Key", text))
        answer = client.get(f"{API}/metadata", headers={name: value})
        assert answer.status_code == status
        if status != 200:
            assert answer.headers["Content-Type"] == ERROR
            assert answer.json["error"]["message"]
    assert client.get(f"{API}/metadata", headers={"Authorization": "Basic %%%"}).status_code == 401
    other = client.get(f"{API}/metadata", headers={"Authorization": f"Bearer {make_token('pull', 'admission')}"})
    assert other.status_code == 403


# Unknown is never clean


def test_what_could_not_be_examined_is_a_finding_that_blocks(
    caller: Harbor, worker: Worker, database: Database, registry: registries.RegistryView
) -> None:
    for how in ("vulnerabilities", "findings"):
        set_up_as(database, registry, how)
        scan_id = caller.submit(with_gap())
        worker.finish(with_gap())
        answer = caller.report(scan_id)
        (finding,) = document(answer)["vulnerabilities"]
        assert (finding["id"], finding["severity"]) == ("DW-undecided", "Critical")
        assert "found no package" in finding["description"]
        assert document(answer)["severity"] == "Critical"
        assert document(answer)["vendor_attributes"]["dockwarden"]["complete"] is False
        assert caller.report(scan_id, V1_0).json["vulnerabilities"], "the older report has it as well"


def test_a_gap_that_the_policy_accepts_is_shown_and_does_not_block(
    caller: Harbor, worker: Worker, database: Database
) -> None:
    with database.session() as session:
        policies.put(session, "cluster", POLICY.replace("rules:", "incomplete: warn\nrules:"), "test")
    scan_id = caller.submit(with_gap())
    worker.finish(with_gap())
    assert caller.findings(scan_id) == {"DW-incomplete": "Unknown"}


def test_a_scan_that_ends_without_evidence_ends_for_harbor(
    caller: Harbor, worker: Worker, database: Database, app: OpenAPI
) -> None:
    scan_id = caller.submit(CLEAN)
    worker.fail(UsageError("the registry refused the credentials", reason="registry_auth_refused"))
    answer = caller.report(scan_id)
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, ERROR)
    conforms(answer.json, "ErrorResponse")
    assert "refused the credentials" in answer.json["error"]["message"]
    gone = caller.submit(CLEAN)
    with database.session() as session:
        scans.cancel(session, gone)
    assert caller.report(gone).status_code == 500
    artifact = caller.submit(CLEAN)
    claim = worker.claim()
    with database.session() as session:
        scans.finish_without_image(session, claim, CLEAN.digest, "it is a signature, not an image")
    assert "not an image" in caller.report(artifact).json["error"]["message"]
    app.extensions["doors_recorder"].flush()
    with database.read() as session:
        assert admissions.of_doors(session, ["harbor"])["harbor"].day["denied"] == 3


def test_a_scan_that_nobody_runs_ends_too(caller: Harbor, database: Database) -> None:
    scan_id = caller.submit(CLEAN)
    with database.session() as session:
        late = harbor_scan.c.id == scan_id
        created = scans.get(session, scan_id).created_at - use_cases.DEADLINE - timedelta(seconds=1)
        table = sa.table("scan", sa.column("id"), sa.column("created_at", sa.DateTime(timezone=True)))
        session.execute(table.update().where(table.c.id == scan_id).values(created_at=created))
        assert session.execute(sa.select(harbor_scan.c.credentials).where(late)).scalar()
    answer = caller.report(scan_id)
    assert answer.status_code == 500
    assert "whether a worker runs" in answer.json["error"]["message"]
    with database.read() as session:
        assert scans.get(session, scan_id).state == "cancelled"
        assert session.execute(sa.select(harbor_scan.c.credentials).where(late)).scalar() is None


def test_a_database_that_is_away_is_an_error_in_harbors_form(
    caller: Harbor, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_id = caller.submit(BAD)
    worker.finish(BAD)

    def away(*asked: Any) -> None:
        raise RemoteError("the database does not answer", reason="db_unavailable")

    monkeypatch.setattr(gate, "current_decision", away)
    answer = caller.report(scan_id)
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, ERROR)
    conforms(answer.json, "ErrorResponse")


def test_a_token_that_asks_too_often_is_refused_in_harbors_form(
    limited: OpenAPI, database: Database, make_token: Callable[..., str]
) -> None:
    caller = Harbor(limited.test_client(), {"Authorization": f"Bearer {make_token('harbor')}"})
    assert caller.client.get(f"{API}/metadata", headers=caller.authorization).status_code == 200
    with database.read() as session:
        (token,) = accounts.list_tokens(session)
    limited.extensions["dockwarden"].throttle.take("harbor", token.id, throttle.HARBOR, throttle.HARBOR.burst - 1)
    answer = caller.client.get(f"{API}/metadata", headers=caller.authorization)
    assert (answer.status_code, answer.headers["Content-Type"]) == (429, ERROR)
    assert int(answer.headers["Retry-After"]) > 0


# Our decision in Harbor


def test_denials_checks_and_signatures_are_findings_where_that_is_switched_on(
    caller: Harbor, worker: Worker, database: Database, registry: registries.RegistryView
) -> None:
    denied, rooted = caller.submit(BAD), caller.submit(hardened_badly())
    worker.finish(BAD)
    worker.finish(hardened_badly())
    assert caller.findings(denied) == {
        "DW-denied": "Critical",
        "CVE-2026-00001": "Critical",
        "CVE-2026-00002": "High",
    }
    assert caller.findings(rooted) == {"DW-root-user": "High", "DW-signature-cosign": "High"}
    mine = next(item for item in document(caller.report(denied))["vulnerabilities"] if item["id"] == "DW-denied")
    assert "Denied by policy cluster" in mine["description"]
    assert mine["links"] == [f"https://dockwarden.example.com/images/{BAD.digest}"]
    # Harbor has one row for an id, package and version, with one text for all images.
    assert mine["version"] == BAD.digest[:19]
    set_up_as(database, registry, "vulnerabilities")
    assert "DW-denied" not in caller.findings(denied)
    answer = caller.report(rooted)
    assert document(answer)["vulnerabilities"] == []
    own = document(answer)["vendor_attributes"]["dockwarden"]
    assert own["hardening"] == [{"check": "root-user", "severity": "high", "count": 1}]
    assert own["signatures"][0]["status"] == "refused"


def test_the_environment_in_the_address_selects_the_policies(
    caller: Harbor, worker: Worker, database: Database
) -> None:
    strict = POLICY.replace("{name: cluster}", "{name: strict}").replace("[critical]", "[critical, high, low]")
    with database.session() as session:
        policies.put(session, "strict", strict.replace("rules:", "match: {environments: [prod]}\nrules:"), "test")
    low = make.report(
        "low",
        packages=[make.package(1)],
        vulnerabilities=[make.vulnerability(2, make.package(1), severity=Severity.LOW)],
    )
    prod = replace(caller, api="/adapters/harbor/prod/api/v1")
    lax, bound = caller.submit(low), prod.submit(low)
    worker.finish(low)
    worker.finish(low)
    assert set(caller.findings(lax)) == {"CVE-2026-00002"}
    assert set(prod.findings(bound)) == {"CVE-2026-00002", "DW-denied"}
    assert replace(caller, api="/adapters/harbor/No%20such/api/v1").report(lax).status_code == 404


def test_what_a_person_lets_through_is_not_blocked_by_us(caller: Harbor, worker: Worker, database: Database) -> None:
    scan_id = caller.submit(with_gap())
    worker.finish(with_gap())
    with database.session() as session:
        break_glass.add(session, str(with_gap().digest), "an outage of the shop", "kim", 3600)
    assert caller.findings(scan_id) == {"DW-incomplete": "Unknown"}


def test_the_page_enforcement_shows_the_door(
    caller: Harbor, worker: Worker, app: OpenAPI, make_token: Callable[..., str]
) -> None:
    page = app.test_client()
    headers = {"Authorization": f"Bearer {make_token()}"}
    before = page.get("/enforcement", headers=headers).text
    assert "https://dockwarden.example.com/adapters/harbor" in before
    scan_id = caller.submit(BAD)
    worker.finish(BAD)
    assert caller.report(scan_id).status_code == 200
    app.extensions["doors_recorder"].flush()
    text = page.get("/enforcement?door=harbor", headers=headers).text
    assert "1 denied" in text
    assert BAD.digest[:19] in text


# Credentials


def test_credentials_are_encrypted_used_for_their_scan_and_erased_at_its_end(
    caller: Harbor, worker: Worker, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def sealed() -> list[bytes]:
        with database.read() as session:
            return list(session.execute(sa.select(harbor_scan.c.credentials)).scalars())

    ends: list[Callable[[], object]] = [
        lambda: worker.finish(CLEAN),
        lambda: worker.fail(RemoteError("down")),
        lambda: _cancel(database, scan_id),
    ]
    for end in ends:
        scan_id = caller.submit(CLEAN)
        assert b"canary" not in sealed()[-1]
        with database.read() as session:
            assert harbor.credentials(session, scan_id, KEY) == Secret(ROBOT)
        end()
        with database.read() as session:
            assert harbor.credentials(session, scan_id, KEY) is None
    assert not any(sealed())
    encoded = ROBOT.split()[1]
    assert not any(secret in caplog.text for secret in (encoded, "canary-of-a-robot"))
    with database.read() as session:
        assert "canary" not in repr(audit.list_entries(session).items)


def _cancel(database: Database, scan_id: str) -> None:
    with database.session() as session:
        scans.cancel(session, scan_id)


def test_a_request_joins_no_scan_that_has_other_credentials(caller: Harbor, database: Database) -> None:
    target = f"{make.REPOSITORY}:1@{CLEAN.digest}"
    with database.session() as session:
        waiting = scans.request(session, make.request(target))
    first, second = caller.submit(CLEAN), caller.submit(CLEAN)
    assert len({waiting.scan_id, first, second}) == 3


def test_authorization_of_the_registry() -> None:
    parsed = use_cases.parse_authorization(Secret(ROBOT))
    assert (parsed.username, parsed.password.reveal()) == ("robot$scanner", "canary-of-a-robot")
    assert use_cases.parse_authorization(Secret("Bearer eyJ.a-b_c.d")).token.reveal() == "eyJ.a-b_c.d"
    broken = ("", "Basic", "Basic ===", "Basic eA==", "Bearer", "Bearer a b", "Digest x", "Bearer a\r\nX: y")
    for header in (*broken, "Bearer " + "a" * (17 << 10), "Basic " + base64.b64encode(b"a:b\nc").decode()):
        with pytest.raises(UsageError) as refused:
            use_cases.parse_authorization(Secret(header))
        assert header.partition(" ")[2] == "" or header not in str(refused.value)


# Hostile requests


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(order: dict[str, Any]) -> dict[str, Any]:
        *parents, last = path.split(".")
        place = order
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
        return order

    return change


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {
    "another host": (changed("registry.url", "https://evil.example.com"), 403),
    "our host in the path": (changed("registry.url", f"https://evil.example.com/{HOST}"), 422),
    "our host as a user": (changed("registry.url", f"https://{HOST}@evil.example.com"), 422),
    "our host in the fragment": (changed("registry.url", f"https://evil.example.com#{HOST}"), 422),
    "a path behind our host": (changed("registry.url", f"https://{HOST}/evil"), 422),
    "another port": (changed("registry.url", f"https://{HOST}:5001"), 403),
    "a port that is none": (changed("registry.url", f"https://{HOST}:x"), 422),
    "a broken address": (changed("registry.url", "https://[::1"), 422),
    "cloud metadata": (changed("registry.url", "http://169.254.169.254/"), 403),
    "another scheme": (changed("registry.url", f"file://{HOST}"), 422),
    "a look-alike host": (changed("registry.url", "https://registry.ex\u0430mple.com"), 422),
    "an empty address": (changed("registry.url", ""), 422),
    "a long address": (changed("registry.url", "https://" + "a" * 400), 422),
    "no registry": (changed("registry", None), 422),
    "a registry that is text": (changed("registry", "x"), 400),
    "a number as address": (changed("registry.url", 7), 400),
    "broken credentials": (changed("registry.authorization", "Basic x"), 422),
    "credentials with a header": (changed("registry.authorization", "Bearer a\r\nX: y"), 422),
    "huge credentials": (changed("registry.authorization", "Bearer " + "a" * (20 << 10)), 422),
    "no digest": (changed("artifact.digest", None), 422),
    "a short digest": (changed("artifact.digest", "sha256:00"), 422),
    "a digest of another algorithm": (changed("artifact.digest", "md5:" + "0" * 32), 422),
    "a tag as digest": (changed("artifact.digest", "latest"), 422),
    "a number as digest": (changed("artifact.digest", 1), 400),
    "a repository with a tag": (changed("artifact.repository", "shop/cart:2"), 422),
    "a repository with a digest": (changed("artifact.repository", f"shop/cart@{BAD.digest}"), 422),
    "a repository that climbs": (changed("artifact.repository", "../../etc"), 422),
    "a repository with a query": (changed("artifact.repository", "shop/cart?x=1"), 422),
    "an absolute repository": (changed("artifact.repository", "/shop/cart"), 422),
    "a repository with NUL": (changed("artifact.repository", "shop/cart\0"), 422),
    "an empty repository": (changed("artifact.repository", ""), 422),
    "a tag that is none": (changed("artifact.tag", "a b"), 422),
    "a tag with a digest": (changed("artifact.tag", f"1@{BAD.digest}"), 422),
    "a list as tag": (changed("artifact.tag", []), 400),
    "an index": (changed("artifact.mime_type", "application/vnd.oci.image.index.v1+json"), 501),
    "another capability": (changed("enabled_capabilities", [{"type": "malware"}]), 422),
    "a capability without type": (changed("enabled_capabilities", [{}]), 422),
    "capabilities that are none": (changed("enabled_capabilities", "sbom"), 400),
    "another report": (changed("enabled_capabilities", [{"type": "sbom", "produces_mime_types": [V1_1]}]), 501),
    "another SBOM": (
        changed("enabled_capabilities", [{"type": "sbom", "parameters": {"sbom_media_types": ["text/plain"]}}]),
        422,
    ),
    "a list": (lambda order: [order], 400),
    "no JSON": (lambda order: b"{", 400),
    "nothing": (lambda order: b"", 400),
    "not UTF-8": (lambda order: b'{"registry": "\xff"}', 400),
    "deeply nested": (lambda order: b"[" * 5000, 400),
    "too large": (lambda order: b" " * (70 << 10), 413),
}


def test_hostile_requests_are_refused_in_harbors_form(caller: Harbor, database: Database) -> None:
    for name, (change, status) in HOSTILE.items():
        answer = caller.scan(change(caller.order(CLEAN)))
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, ERROR), (name, answer.text)
        assert answer.json["error"]["message"], name
    with database.read() as session:
        assert not scans.list_scans(session, None).items


def test_a_registry_that_nobody_named_as_a_harbor_is_refused_and_shown(
    caller: Harbor, database: Database, registry: registries.RegistryView, app: OpenAPI
) -> None:
    set_up_as(database, registry, "off")
    answer = caller.scan(caller.order(CLEAN))
    assert answer.status_code == 403
    assert "under Registries" in answer.json["error"]["message"]
    app.extensions["doors_recorder"].flush()
    with database.read() as session:
        (row,) = admissions.list_reviews(session, door="harbor").items
    assert (row.outcome, row.namespace, row.name) == ("denied", HOST, REPOSITORY)


def test_the_address_selects_the_configured_registry_and_nothing_else(caller: Harbor, worker: Worker) -> None:
    for url in (f"https://{HOST}/", f"https://{HOST}:443", f"HTTPS://{HOST.upper()}", "http://core:8080"):
        assert caller.scan(changed("registry.url", url)(caller.order(CLEAN))).status_code == 202, url
        assert worker.claim().request.target.startswith(f"{HOST}/{REPOSITORY}"), "the host is the configured one"


def test_an_id_of_somebody_else_is_not_there(
    caller: Harbor, calling: Callable[..., Harbor], worker: Worker, database: Database
) -> None:
    scan_id = caller.submit(CLEAN)
    worker.finish(CLEAN)
    with database.session() as session:
        other = scans.request(session, make.request(f"{make.REPOSITORY}:7"))
    unknown = "00000000-0000-4000-8000-000000000000"
    for who, identifier in (
        (calling(), scan_id),
        (calling("harbor", projects=["elsewhere"]), scan_id),
        (caller, other.scan_id),
        (caller, unknown),
        (caller, "%00"),
        (caller, "a" * 3000),
    ):
        answer = who.report(identifier)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, ERROR)
        assert answer.json["error"]["message"] == "there is no such scan"
    assert caller.report(scan_id).status_code == 200


def test_a_token_of_another_project_scans_nothing(calling: Callable[..., Harbor]) -> None:
    foreign = calling("harbor", projects=["elsewhere"])
    assert foreign.scan(foreign.order(CLEAN)).status_code == 403


BODIES = st.one_of(
    st.binary(max_size=300),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
        max_leaves=12,
    ),
    st.fixed_dictionaries(
        {
            "registry": st.fixed_dictionaries({"url": st.text(max_size=60), "authorization": st.text(max_size=60)}),
            "artifact": st.fixed_dictionaries(
                {"repository": st.text(max_size=40), "digest": st.text(max_size=80) | st.just(str(CLEAN.digest))}
            ),
        }
    ),
)


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, path=st.text(max_size=30), accept=st.text(st.characters(max_codepoint=126, min_codepoint=32)))
def test_no_bytes_break_the_adapter(caller: Harbor, body: Any, path: str, accept: str) -> None:
    if not isinstance(body, bytes):
        body = orjson.dumps(_writable(body))
    answer = caller.scan(body)
    assert answer.status_code in (400, 403, 422), answer.text
    quoted = "".join(f"%{byte:02x}" for byte in path.encode("utf-8", "surrogatepass")) or "x"
    assert caller.report(quoted, accept).status_code in (308, 404, 405)
    assert adapter._media_type(accept) in (None, V1_0, V1_1, RAW, SBOM)


def _writable(value: Any) -> Any:
    """What JSON can hold: no half surrogates, no integer beyond 64 bits."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_writable(name): _writable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_writable(inner) for inner in value]
    return value % (1 << 53) if isinstance(value, int) and not isinstance(value, bool) else value
