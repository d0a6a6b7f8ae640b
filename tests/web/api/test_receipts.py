"""Receipts over the API and on the image's page: the decision in force, signed; keys, rotation, revocation, audit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask_openapi3.openapi import OpenAPI

from scanner.cli import cli
from scanner.config import KeyRing, Secret
from scanner.model.finding import Incomplete, Severity
from scanner.services import receipts as use_cases
from scanner.store import audit, gate, policies, projects, registries, secrets
from scanner.store import receipts as store
from scanner.store.schema import receipt, receipt_key, verdict
from scanner.store.session import Database, epoch
from tests.scanner.store import factories as make
from tests.web.conftest import KEY, Api, Worker
from tests.web.pages.test_policies import Form
from tests.web.people import calling, person

POLICY = """
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: production}
match: {environments: [production]}
rules:
  - {id: no-criticals, vulnerability: {severity: [critical]}, action: deny}
"""
PACKAGE = make.package(1)
GOOD = make.report("good", packages=[PACKAGE])
BAD = make.report(
    "bad", packages=[PACKAGE], vulnerabilities=[make.vulnerability(1, PACKAGE, severity=Severity.CRITICAL)]
)


@pytest.fixture
def scanned(database: Database, api: Api, worker: Worker) -> None:
    with database.session() as session:
        policies.put(session, "production", POLICY, "test")
    for found, tag in ((GOOD, "good"), (BAD, "bad")):
        api("POST", "/scans", {"image": f"{make.REPOSITORY}:{tag}"})
        worker.finish(found)


def asked(api: Api, digest: str = GOOD.digest, **query: str) -> dict[str, Any]:
    answer = api("GET", f"/images/{digest}/receipt", query_string=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


@dataclass(frozen=True)
class Ran:
    exit_code: int
    output: str


@pytest.fixture
def run(api: Api, tmp_path: Path) -> Callable[..., Ran]:
    """``dockwarden receipt verify`` of an answer, with the published keys."""

    def verify(found: object, *more: str) -> Ran:
        (tmp_path / "receipt.json").write_text(json.dumps(found))
        keys = api("GET", "/receipts/keys")
        (tmp_path / "keys.json").write_text(keys.text)
        command = ["receipt", "verify", str(tmp_path / "receipt.json"), "--key", str(tmp_path / "keys.json"), *more]
        done = CliRunner().invoke(cli, command, standalone_mode=False)
        assert done.exception is None, done.output
        return Ran(int(done.return_value or 0), done.output)

    return verify


@pytest.mark.usefixtures("scanned")
def test_an_allowed_image_gets_a_receipt_that_verifies_offline(api: Api, run: Callable[..., Ran]) -> None:
    found = asked(api, environment="production")
    assert (found["result"], found["verdict"], found["state"]) == ("PASSED", "allow", "current")
    assert (found["environment"], found["project"], found["repository"]) == ("production", "default", make.REPOSITORY)
    image = f"{make.REPOSITORY}@{GOOD.digest}"
    good = run(found, "--environment", "production", "--image", image, "--platform", "linux/amd64")
    assert good.exit_code == 0, good.output
    assert "PASSED" in good.output
    for more, why in (
        ([], "environment production"),
        (["--environment", "staging"], "environment production"),
        (["--environment", "production", "--image", BAD.digest], "another image"),
        (["--environment", "production", "--image", f"registry.example.com/a/b@{GOOD.digest}"], "another repository"),
        (["--environment", "production", "--at", "2020-01-01T00:00:00Z"], "future"),
        (["--environment", "production", "--at", "2120-01-01T00:00:00Z"], "ended"),
    ):
        refused = run(found, *more)
        assert refused.exit_code == 1, (more, refused.output)
        assert "REFUSED" in refused.output
        assert why in refused.output


@pytest.mark.usefixtures("scanned")
def test_a_denied_image_gets_a_receipt_that_fails(api: Api, run: Callable[..., Ran]) -> None:
    found = asked(api, BAD.digest, environment="production")
    assert (found["result"], found["undecided"]) == ("FAILED", False)
    denied = run(found, "--environment", "production")
    assert denied.exit_code == 1
    assert "CVE-2026-00001" in denied.output


@pytest.mark.usefixtures("scanned")
def test_an_undecided_image_does_not_pass(
    api: Api, worker: Worker, database: Database, run: Callable[..., Ran]
) -> None:
    (image,) = GOOD.images
    unknown = replace(GOOD, images=(replace(image, incomplete=(Incomplete("layer_unreadable"),)),))
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:good", "force": True})
    worker.finish(unknown)
    found = asked(api, environment="production")
    assert (found["result"], found["undecided"]) == ("FAILED", True)
    assert run(found, "--environment", "production").exit_code == 3


def test_without_a_decision_there_is_no_receipt(api: Api) -> None:
    answer = api("GET", f"/images/{GOOD.digest}/receipt")
    assert (answer.status_code, answer.json["reason"]) == (404, "not_decided")
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:good"})  # waits
    assert api("GET", f"/images/{GOOD.digest}/receipt").status_code == 404


@pytest.mark.usefixtures("scanned")
def test_the_same_decision_is_signed_once_and_a_new_one_replaces_it(
    api: Api, worker: Worker, database: Database, run: Callable[..., Ran]
) -> None:
    first = asked(api, environment="production")
    assert asked(api, environment="production")["id"] == first["id"]
    assert asked(api)["id"] != first["id"], "another environment, another receipt"
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:good", "force": True})
    worker.finish(replace(BAD, subject=GOOD.subject, images=(replace(BAD.images[0], image=GOOD.images[0].image),)))
    second = asked(api, environment="production")
    assert (first["result"], second["result"]) == ("PASSED", "FAILED")
    both = {"attestations": [*first["attestations"], *second["attestations"]]}
    assert run(first, "--environment", "production").exit_code == 0, "offline, alone, it holds until its end"
    assert run(both, "--environment", "production").exit_code == 1, "the newer one revokes it"
    with database.read() as session:
        states = {each.id: use_cases.state(session, each) for each in store.of_image(session, GOOD.digest, None)}
        issued = [entry for entry in audit.list_entries(session, limit=50).items if entry.action == "receipt.issue"]
    assert (states[first["id"]], states[second["id"]]) == ("superseded", "current")
    assert len(issued) == 3
    assert issued[0].detail["environment"] == "production"


@pytest.mark.usefixtures("scanned")
def test_an_outdated_decision_is_made_again_before_it_is_signed(api: Api, database: Database) -> None:
    before = asked(api, BAD.digest, environment="production")
    assert before["result"] == "FAILED"
    with database.session() as session:
        policies.put(session, "production", POLICY.replace("action: deny", "action: warn"), "test")
        gate.invalidate(session)
    assert asked(api, BAD.digest, environment="production")["result"] == "PASSED"


@pytest.mark.usefixtures("scanned")
def test_a_receipt_ends_with_its_decision(api: Api, database: Database) -> None:
    with database.session() as session:
        ends = int(epoch(session)) + 600.0
        session.execute(verdict.update().values(valid_until=ends))
    found = asked(api, environment="production")
    with database.read() as session:
        (row,) = store.of_image(session, GOOD.digest, None)
    assert row.valid_until == ends
    assert found["valid_until"] == row.issued_at.fromtimestamp(ends, row.issued_at.tzinfo).isoformat().replace(
        "+00:00", "Z"
    )
    assert asked(api, environment="production")["id"] == found["id"], "a new one could not hold longer"


@pytest.mark.usefixtures("scanned")
def test_one_that_ends_soon_is_renewed(api: Api, database: Database) -> None:
    found = asked(api)
    with database.session() as session:
        session.execute(receipt.update().values(valid_until=epoch(session) + 60))
    assert asked(api)["id"] != found["id"]


@pytest.mark.usefixtures("scanned")
def test_both_forms_are_in_the_answer(api: Api) -> None:
    for each in asked(api)["attestations"]:
        assert each["bundle"]["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
        assert each["bundle"]["dsseEnvelope"] == each["envelope"]
        assert each["envelope"]["payloadType"] == "application/vnd.in-toto+json"
    for query in ({"environment": "A b"}, {"repository": "x" * 2000}, {"format": "xml"}):
        assert api("GET", f"/images/{GOOD.digest}/receipt", query_string=query).status_code == 422, query


@pytest.mark.usefixtures("scanned")
def test_an_image_in_several_repositories_needs_a_name(api: Api, worker: Worker) -> None:
    api("POST", "/scans", {"image": "registry.example.com/shop/copy:1"})
    worker.finish(GOOD)
    answer = api("GET", f"/images/{GOOD.digest}/receipt")
    assert (answer.status_code, answer.json["reason"]) == (400, "ambiguous_repository")
    assert asked(api, repository="registry.example.com/shop/copy")["repository"].endswith("/copy")
    other = api("GET", f"/images/{GOOD.digest}/receipt", query_string={"repository": "registry.example.com/none"})
    assert other.status_code == 404


@pytest.mark.usefixtures("scanned")
def test_another_projects_receipt_is_not_there(call: Callable[..., Api], database: Database) -> None:
    with database.session() as session:
        projects.create(session, "elsewhere")
    assert call(projects=["elsewhere"])("GET", f"/images/{GOOD.digest}/receipt").status_code == 404


def test_keys_are_public_and_one_is_created_once(anonymous: Api, database: Database) -> None:
    first = anonymous("GET", "/receipts/keys").json
    assert anonymous("GET", "/receipts/keys").json == first
    assert [sorted(key) for key in first["keys"]] == [["alg", "crv", "kid", "kty", "use", "x", "y"]]
    pem = anonymous("GET", "/receipts/keys.pem").text
    assert pem.startswith("-----BEGIN PUBLIC KEY-----")
    with database.read() as session:
        (row,) = session.execute(receipt_key.select()).all()
    assert b"PRIVATE KEY" not in row.private


@pytest.mark.usefixtures("scanned")
def test_a_key_is_rotated_with_overlap(api: Api, database: Database, app: OpenAPI) -> None:
    signer, administrator = use_cases.Signer(app.extensions["dockwarden"].settings, KEY), _administrator()
    old = asked(api)["key_id"]
    with database.session() as session:
        made = use_cases.rotate_key(session, signer, administrator)
    assert [key["kid"] for key in api("GET", "/receipts/keys").json["keys"]] == [made.key_id, old]
    with database.session() as session:
        session.execute(receipt.update().values(valid_until=1.0))
    assert asked(api)["key_id"] == old, "the new key is published before it signs"
    assert api("GET", "/receipts/keys.pem").text.startswith(_pem(database, old))
    with database.session() as session:
        _age(session, made.number, epoch(session) - 3600)
        session.execute(receipt.update().values(valid_until=1.0))
    assert asked(api)["key_id"] == made.key_id
    assert len(api("GET", "/receipts/keys").json["keys"]) == 2, "receipts of the former key may still hold"
    with database.session() as session:
        _age(session, made.number, epoch(session) - 25 * 3600)
    assert [key["kid"] for key in api("GET", "/receipts/keys").json["keys"]] == [made.key_id]
    with database.read() as session:
        assert [key.erased for key in store.keys(session)] == [False, True], "it signs nothing any more"


def _age(session: Any, number: int, signs_from: float) -> None:
    session.execute(receipt_key.update().where(receipt_key.c.number == number).values(signs_from=signs_from))


def _pem(database: Database, key_id: str) -> str:
    with database.read() as session:
        return next(key.public_pem for key in store.keys(session) if key.key_id == key_id)


def _administrator() -> Any:
    from scanner.model.actor import COMMAND_LINE

    return COMMAND_LINE


@pytest.mark.usefixtures("scanned")
def test_a_key_is_revoked_with_its_receipts(api: Api, database: Database, app: OpenAPI) -> None:
    signer = use_cases.Signer(app.extensions["dockwarden"].settings, KEY)
    old = asked(api)
    with database.session() as session:
        assert use_cases.revoke_key(session, signer, _administrator(), old["key_id"][:12]) == 1
    new = asked(api)
    assert new["key_id"] != old["key_id"]
    assert [key["kid"] for key in api("GET", "/receipts/keys").json["keys"]] == [new["key_id"]]


@pytest.mark.usefixtures("scanned")
def test_the_private_key_survives_a_new_secret_key(api: Api, database: Database) -> None:
    asked(api)
    other = KeyRing(Secret("another secret key for tests, long enough"), KEY)
    with database.session() as session:
        assert secrets.reseal(session, other) >= 1
        (key,) = store.keys(session)
        assert store.private_key(session, key.id, other).reveal().startswith("-----BEGIN PRIVATE KEY")


@pytest.mark.usefixtures("scanned")
def test_the_page_shows_creates_and_downloads(api: Api, app: OpenAPI, database: Database) -> None:
    viewer = calling(app, database, person(database, "vera", "security"))
    page = f"/images/{GOOD.digest}?tab=receipts"
    headers = {"Authorization": f"Bearer {viewer.token}"}
    empty = app.test_client().get(page, headers=headers)
    assert "No receipt yet" in empty.text
    assert 'setting "Write receipts" of the registry' in empty.text.replace("&#34;", '"')
    found = asked(api, environment="production")
    shown = app.test_client().get(page, headers=headers).text
    for text in ("Current", "PASSED", "production", "receipt verify", "--environment production", "setting is off"):
        assert text in shown, text
    file = app.test_client().get(f"/images/{GOOD.digest}/receipt/{found['id']}?predicate=decision", headers=headers)
    assert file.json == next(e["bundle"] for e in found["attestations"] if e["predicate_type"].startswith("urn:"))
    assert app.test_client().get(f"/images/{BAD.digest}/receipt/{found['id']}", headers=headers).status_code == 404
    assert timedelta(hours=23) < _life(database)


def _life(database: Database) -> timedelta:
    with database.read() as session:
        (row,) = store.of_image(session, GOOD.digest, None)
    return timedelta(seconds=row.valid_until - row.issued_at.timestamp())


def test_a_refused_environment_comes_back_as_typed(scanned: None, app: OpenAPI, make_token: Callable[..., str]) -> None:
    form = Form(app.test_client(), make_token())
    place = f"/images/{GOOD.digest}/receipt"
    page = form(place, repository=make.REPOSITORY, environment="Prod <1>")
    assert page.status_code == 422
    assert "such as production" in page.text
    assert 'value="Prod &lt;1&gt;" aria-invalid="true"' in page.text
    assert f"<option selected>{make.REPOSITORY}</option>" in page.text
    assert form(place, repository=make.REPOSITORY, environment="production").status_code == 303


def test_a_receipt_that_the_registry_does_not_get_says_why(
    scanned: None, app: OpenAPI, database: Database, make_token: Callable[..., str]
) -> None:
    """The state of the push is that of the image's other receipts."""
    with database.session() as session:
        registries.add(session, make.REPOSITORY.partition("/")[0], KEY, write_receipts=True)
    form = Form(app.test_client(), make_token())
    place = f"/images/{GOOD.digest}"
    for environment in ("production", "invented"):
        assert form(f"{place}/receipt", repository=make.REPOSITORY, environment=environment).status_code == 303
    page = form.client.get(f"{place}?tab=receipts", headers=form.headers).text
    states = re.findall(r'data-label="In the registry">(?:<span class="muted">)?([^<]+)', page)
    assert sorted(states) == ["Waiting", "not written: no policy names this environment"]
    assert "--type urn:dockwarden:receipt:v1:production " in page, "the command finds one that is written"


def test_a_refused_form_links_to_pages_that_can_be_opened(
    scanned: None, app: OpenAPI, make_token: Callable[..., str]
) -> None:
    form = Form(app.test_client(), make_token())
    page = form(f"/images/{GOOD.digest}/receipt", repository=make.REPOSITORY, environment="<>").text
    assert f'name="next" value="/images/{GOOD.digest}"' in page
    chosen = form("/appearance", theme="dark", next=page.partition('name="next" value="')[2].partition('"')[0])
    assert form.client.get(chosen.headers["Location"], headers=form.headers).status_code == 200
