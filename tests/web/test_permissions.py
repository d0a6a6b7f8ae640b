"""Nobody gets in who may not: every route as every kind of caller, by the reviewed table; and nothing of another
project's shows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from scanner.errors import RemoteError
from scanner.model.access import ROLES, SCOPES
from scanner.model.actor import Person
from scanner.model.finding import Severity
from scanner.policy import openvex
from scanner.store import accounts, deliveries, exemptions, policies, projects, registries, scans, vex
from scanner.store.schema import metadata
from scanner.store.session import Database
from tests.scanner.policy.test_openvex import changed
from tests.scanner.store import factories as make
from tests.web.api.test_gate import policy
from tests.web.conftest import KEY, Api, Worker
from tests.web.people import calling, person
from tests.web.permissions import TABLE

PUBLIC, SIGNED_IN = "public", "signed-in"
MISSING = {
    "uuid": "00000000-0000-4000-8000-000000000000",
    "int": "7",
    "digest": "sha256:" + "0" * 64,
    "vulnerability_id": "CVE-1999-0001",
    "session_id": "0" * 64,
}


def routes(app: OpenAPI) -> set[tuple[str, str]]:
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def path_of(rule: str, values: dict[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        return values.get(match[2], "") or MISSING.get(match[2], "") or MISSING.get(match[1] or "", "nothing-such")

    return re.sub(r"<(?:(\w+):)?(\w+)>", fill, rule)


def test_every_route_is_in_the_table_with_its_permission(app: OpenAPI) -> None:
    there = {
        (method, rule.rule): getattr(app.view_functions[rule.endpoint], "permission", "closed")
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    new = [
        f'    ("{method}", "{rule}"): ("{there[method, rule]}", "own"),'
        for method, rule in sorted(there.keys() - TABLE.keys())
    ]
    assert not new, (
        "routes that nobody reviewed. Add them to TABLE in tests/web/permissions.py, and for each say what "
        "somebody of another "
        'project gets: "own", "everybody" or "none":\n' + "\n".join(new)
    )
    gone = sorted(TABLE.keys() - there.keys())
    assert not gone, f"rows of tests/web/permissions.py without a route; take them out: {gone}"
    other = {key: (TABLE[key][0], there[key]) for key in there if TABLE[key][0] != there[key]}
    assert not other, f"the table says one permission, the route another (reviewed, found): {other}"
    assert {reach for _, reach in TABLE.values()} <= {"own", "everybody", "none"}


# Every kind of caller


@pytest.fixture
def callers(app: OpenAPI, database: Database, call: Callable[..., Api]) -> dict[str, tuple[Api, frozenset[str] | None]]:
    """Name -> (caller, what it may). None: it is nobody."""
    nobody = app.test_client()
    found: dict[str, tuple[Api, frozenset[str] | None]] = {"nobody": (Api(nobody), None)}
    for role, may in ROLES.items():
        found[role] = (calling(app, database, person(database, role, role)), may)
    for scope in SCOPES:
        found[f"token:{scope}"] = (call(scope), frozenset({scope}))
    found["token:foreign project"] = (call(projects=["elsewhere"]), frozenset(SCOPES))
    found["token:more than its owner"] = (
        calling(app, database, person(database, "modest", "viewer"), SCOPES),
        ROLES["viewer"],
    )
    found["token:expired"] = (call(expires_at=datetime.now(UTC) - timedelta(seconds=1)), None)
    found["token:misspelt"] = (Api(nobody, call().token + "x"), None)
    disabled = person(database, "gone", "admin")
    found["disabled user"] = (calling(app, database, disabled), None)
    revoked = call()
    with database.session() as session:
        accounts.set_disabled(session, disabled, True)
        prefix = revoked.token.split("_")[1]
        (mine,) = [token for token in accounts.list_tokens(session) if token.prefix == prefix]
        accounts.revoke_token(session, mine.id)
    found["token:revoked"] = (revoked, None)
    return found


NAMES = (
    "nobody",
    *ROLES,
    *(f"token:{scope}" for scope in SCOPES),
    "token:foreign project",
    "token:more than its owner",
    "token:expired",
    "token:misspelt",
    "disabled user",
    "token:revoked",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_what_happens(
    app: OpenAPI, database: Database, callers: dict[str, tuple[Api, frozenset[str] | None]], name: str
) -> None:
    caller, may = callers[name]
    denied = [key for key in TABLE if not _allowed(TABLE[key][0], may)]
    before = snapshot(database)
    for method, rule in denied:
        answer = send(caller, method, path_of(rule, {}))
        assert answer.status_code == (401 if may is None else 403), (name, method, rule, answer.text[:200])
        assert answer.json["reason"] == ("not_allowed" if may is not None else answer.json["reason"])
    assert snapshot(database) == before, "something was changed for somebody who may not"
    for method, rule in TABLE.keys() - set(denied):
        if TABLE[method, rule][0] == PUBLIC or rule.endswith("sign-out-everywhere"):
            continue
        answer = send(caller, method, path_of(rule, {}))
        assert answer.status_code != 401, (name, method, rule)
        assert answer.status_code < 500, (name, method, rule, answer.text[:300])
        if answer.status_code == 403:  # only what is confined, or takes a person; the permission is there
            assert "required permission" not in answer.text, (name, method, rule)


def _allowed(permission: str, may: frozenset[str] | None) -> bool:
    return permission == PUBLIC or (may is not None and (permission == SIGNED_IN or permission in may))


def send(caller: Api, method: str, path: str, body: Any = None) -> TestResponse:
    headers = {"Authorization": f"Bearer {caller.token}"} if caller.token else {}
    json = (body if body is not None else {}) if path.startswith("/api/") and method not in ("GET", "DELETE") else None
    return caller.client.open(path, method=method, headers={**headers, "Accept": "application/json"}, json=json)


def snapshot(database: Database) -> str:
    """Everything the database holds, but when tokens were used."""
    digest = hashlib.sha256()
    with database.read() as session:
        for table in metadata.sorted_tables:
            columns = [column for column in table.c if column.name not in ("last_used_at", "seen_at")]
            for row in session.execute(sa.select(*columns).order_by(*table.primary_key.columns)):
                digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()


# Another project's things


CANARY = "canary"
HOST_B = "canary-host.example"


@dataclass(frozen=True)
class World:
    """Another project, full of words that are nowhere else: the identifiers of what is in it."""

    ids: dict[str, str]
    policy: str
    project: str


@pytest.fixture
def world(app: OpenAPI, database: Database, api: Api, worker: Worker) -> World:
    package = make.package(1)
    flaw = make.vulnerability(
        1,
        package,
        id="CVE-2026-77777",
        severity=Severity.CRITICAL,
        title=f"{CANARY} title",
        description=f"{CANARY} words",
    )
    found = make.report("canary", packages=[package], vulnerabilities=[flaw], repository=f"{HOST_B}/canary-repo")
    with database.session() as session:
        projects.create(session, "ours")
        projects.create(session, "canary-project", description=f"{CANARY} about", groups=["canary-group"])
        registry = registries.add(
            session, HOST_B, KEY, username="canary-user", project="canary-project", ca_pem="canary"
        )
        hook, _ = deliveries.create_hook(session, "canary-hook", "distribution", registry.id, KEY)
        delivery = deliveries.record(session, hook, "d1", 1, "canary outcome")
        asked = make.request(f"{HOST_B}/canary-repo:canary-tag", project="canary-project", requested_by="canary-asker")
        scan = scans.request(session, asked, delivery_id=delivery.id)
        policies.put(session, "all", policy(), "test")
        text = policy("canary-policy").replace("kind: Policy", "kind: Policy # canary comment")
        policies.put(session, "canary-policy", text, "canary-author", project="canary-project")
        document = vex.add(
            session,
            "canary-project",
            changed(),
            "canary",
            name="canary-vex",
            author="canary",
            version="1",
            statements=openvex.parse(changed()).statements,
        )
        token, _ = accounts.create_token(session, "canary-token", ["read"], KEY, projects=["canary-project"])
    worker.finish(found)
    member = person(database, "canary-member", "developer", member_of=["canary-project"])
    with database.session() as session:
        failed = scans.request(session, make.request(f"{HOST_B}/canary-repo:2", project="canary-project"))
        exemption = exemptions.request(
            session,
            "canary-project",
            Person(member, "canary-member"),
            images=[f"{HOST_B}/canary-repo"],
            justification="canary reasons",
            expires_at=datetime.now(UTC) + timedelta(days=9),
            subject="CVE-2026-77777",
        )
    worker.fail(RemoteError("canary message"))
    ids = {
        "scan_id": scan.scan_id,
        "digest": found.digest,
        "delivery_id": delivery.id,
        "exemption_id": exemption.id,
        "registry_id": registry.id,
        "webhook_id": hook,
        "document_id": document.id,
        "token_id": token.id,
        "user_id": member,
        "vulnerability_id": "CVE-2026-77777",
        "version": "1",
    }
    assert failed.scan_id
    return World(ids, "canary-policy", "canary-project")


def filled(rule: str, world: World) -> str:
    """The rule's path with the other project's identifiers."""
    if "/vulnerabilities/<name>" in rule:
        name = world.ids["vulnerability_id"]
    else:
        name = world.project if "/projects/" in rule else world.policy
    return path_of(rule, {**world.ids, "name": name})


BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/gate"): {"image": f"{HOST_B}/canary-repo:canary-tag", "project": "canary-project"},
    ("POST", "/api/v1/scans"): {"image": f"{HOST_B}/canary-repo:3", "project": "canary-project"},
    ("POST", "/api/v1/exemptions"): {
        "project": "canary-project",
        "images": ["**"],
        "subject": "CVE-2026-77777",
        "justification": "because of reasons",
        "expires_at": (datetime.now(UTC) + timedelta(days=9)).isoformat(),
    },
    ("POST", "/api/v1/vex"): {"document": orjson.loads(changed()), "project": "canary-project"},
    ("PUT", "/api/v1/policies/<name>"): {"text": policy("canary-policy")},
    ("PUT", "/api/v1/policies/<name>/enabled"): {"enabled": False},
    ("POST", "/api/v1/projects"): {"name": "more"},
    ("POST", "/api/v1/registries"): {"host": "more.example"},
    ("POST", "/api/v1/users"): {"name": "eve", "password": "correct horse battery"},
    ("PUT", "/api/v1/users/<uuid:user_id>/disabled"): {"disabled": True},
    ("PUT", "/api/v1/users/<uuid:user_id>/password"): {"password": "correct horse battery"},
    ("PUT", "/api/v1/users/<uuid:user_id>/role"): {"role": "viewer"},
}


@pytest.mark.parametrize("who", ["viewer", "developer", "confined token"])
def test_nothing_of_another_projects_is_shown(
    app: OpenAPI, database: Database, call: Callable[..., Api], world: World, who: str
) -> None:
    if who == "confined token":
        caller, may = call(projects=["ours"]), frozenset(SCOPES)
    else:
        caller, may = calling(app, database, person(database, who, who, member_of=["ours"])), ROLES[who]
    before = snapshot_of_theirs(database, world)
    for (method, rule), (needed, reach) in TABLE.items():
        if not _allowed(needed, may) or needed == PUBLIC or rule.endswith("sign-out-everywhere"):
            continue
        path = filled(rule, world)
        body = BODIES.get((method, rule))
        answer = send(caller, method, path, body)
        said = answer.text + str(answer.headers)
        for own in (path, *map(str, (body or {}).values())):  # what the caller sent may come back
            said = said.replace(own, "")
        said = re.sub(r"canary-policy|canary-repo:[a-z0-9-]*", "", said) if method != "GET" else said
        assert CANARY not in said, (method, path, said[max(0, said.find(CANARY) - 200) :][:400])
        if reach == "everybody" and (method == "GET" or (method, rule) in BODIES):
            assert answer.status_code == 403, (method, path, answer.text[:200])
        if reach == "own" and "<" in rule and method == "GET":
            assert answer.status_code == 404, (method, path, answer.text[:300])
            missing = send(caller, method, path_of(rule, {"version": "1"}))
            assert without_id(answer) == without_id(missing), (
                "what is another's and what is not there must look the same"
            )
    assert snapshot_of_theirs(database, world) == before, "something of another project's was changed"


def test_nothing_of_another_projects_is_on_a_page(app: OpenAPI, database: Database, world: World) -> None:
    """As a browser asks: HTML, with the words of the other project searched for."""
    caller = calling(app, database, person(database, "ada", "developer", member_of=["ours"]))
    for (method, rule), (needed, _) in TABLE.items():
        if method != "GET" or rule.startswith(("/api/", "/static")) or needed not in ("read", SIGNED_IN):
            continue
        headers = {"Authorization": f"Bearer {caller.token}", "Accept": "text/html"}
        path = filled(rule, world)
        text = caller.client.get(path, headers=headers).text.replace(path, "").replace(path.rpartition("/")[2], "")
        assert CANARY not in text, (path, text[max(0, text.find(CANARY) - 200) :][:400])


@pytest.fixture
def shared(database: Database, world: World, worker: Worker) -> str:
    """The digest of an image that both projects have, each under a name of its own."""
    found = make.report("app", packages=[make.package(2)], repository="ours.example/app")
    with database.session() as session:
        registries.add(session, "ours.example", KEY, project="ours")
    for target, project in (("ours.example/app:1", "ours"), (f"{HOST_B}/canary-app:canary-tag", world.project)):
        with database.session() as session:
            scans.request(session, make.request(target, project=project, requested_by=f"{project}-asker"))
        worker.finish(found)
    return str(found.digest)


def test_of_a_shared_image_a_project_sees_its_own_names_only(
    call: Callable[..., Api], world: World, shared: str
) -> None:
    """Every answer that names the digest, and every list that the image is in."""
    caller = call(projects=["ours"])
    for (method, rule), (needed, _) in TABLE.items():
        if method != "GET" or needed == PUBLIC or rule.endswith("/events"):
            continue
        path = path_of(rule, {**world.ids, "digest": shared, "name": "canary-policy"})
        accept = "application/json" if rule.startswith("/api/") else "text/html"
        headers = {"Authorization": f"Bearer {caller.token}", "Accept": accept}
        text = caller.client.get(path, headers=headers).text.replace(path, "").replace(path.rpartition("/")[2], "")
        assert CANARY not in text, (path, text[max(0, text.find(CANARY) - 200) :][:400])
    assert caller("GET", f"/images/{shared}").json["names"][0]["repository"] == "ours.example/app"


def test_a_filter_by_what_is_another_projects_finds_nothing(
    call: Callable[..., Api], world: World, shared: str
) -> None:
    """It answers as for what is nowhere. The parameters are those of the API's document."""
    caller, asked = call(projects=["ours"]), 0
    own = {"digest": shared, "name": "ours", "vulnerability_id": "CVE-2026-77777"}
    identifiers = [value for value in world.ids.values() if re.fullmatch("[0-9a-f-]{36}", value)]
    texts = [f"{HOST_B}/canary-repo", world.project, world.ids["digest"], CANARY]
    for path, item in caller("GET", "/openapi.json").json["paths"].items():
        named = re.sub(r"{(\w+)}", lambda match: own.get(match[1], MISSING["uuid"]), path)
        for parameter in item.get("get", {}).get("parameters", []):
            if parameter["in"] != "query" or parameter["name"] in ("limit", "cursor") or path.endswith("/receipt"):
                continue
            is_identifier = "uuid" in orjson.dumps(parameter["schema"]).decode()
            for value in identifiers if is_identifier else texts:
                missing = MISSING["uuid"] if is_identifier else value.replace(CANARY, "nobody")
                if value.startswith("sha256:"):
                    missing = MISSING["digest"]
                theirs = caller("GET", named, query_string={parameter["name"]: value})
                nowhere = caller("GET", named, query_string={parameter["name"]: missing})
                status, text = without_id(theirs)
                assert (status, text.replace(value, missing)) == without_id(nowhere), (path, parameter["name"], value)
                asked += 1
    assert asked > 50


def test_a_cursor_of_another_project_shows_nothing_of_it(
    api: Api, call: Callable[..., Api], world: World, shared: str
) -> None:
    caller, pages = call(projects=["ours"]), 0
    for path, item in api("GET", "/openapi.json").json["paths"].items():
        names = [parameter["name"] for parameter in item.get("get", {}).get("parameters", [])]
        if "{" in path or "cursor" not in names:
            continue
        cursor = (api("GET", path, query_string={"limit": 1}).json or {}).get("next_cursor")
        if cursor:
            pages += 1
            assert CANARY not in caller("GET", path, query_string={"cursor": cursor}).text, path
    assert pages > 2


def test_what_a_body_names_of_another_project_is_not_there(api: Api, call: Callable[..., Api], world: World) -> None:
    """By identifier, name or host: the answer is the one for what does not exist."""
    address = {"url": "https://192.0.2.1/x"}
    channel = api(
        "POST",
        "/notifications/channels",
        {"name": "canary-channel", "format": "cloudevents", "project": world.project, "settings": address},
    )
    assert channel.status_code == 201, channel.text
    caller = call(projects=["ours"])
    subscription = {"channel": channel.json["id"], "name": "x"}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/notifications/subscriptions", subscription),
        ("POST", "/notifications/subscriptions", subscription | {"project": "ours"}),
        ("POST", "/notifications/subscriptions", subscription | {"personal": True}),
        ("POST", "/webhooks", {"registry": world.ids["registry_id"], "format": "distribution", "name": "x"}),
        ("POST", "/webhooks", {"registry": HOST_B, "format": "distribution", "name": "x"}),
        ("POST", "/tokens", {"name": "t", "scopes": ["read"], "projects": [world.project]}),
        (
            "POST",
            "/notifications/channels",
            {"name": "z", "format": "cloudevents", "project": world.project, "settings": address},
        ),
        ("POST", "/scans", {"image": "ours.example/app:1", "project": world.project}),
        ("POST", "/gate", {"image": "ours.example/app:1", "project": world.project}),
        ("PUT", "/policies/mine", {"text": policy("mine"), "project": world.project}),
        ("PUT", "/policies/canary-policy", {"text": policy("canary-policy")}),
    ]
    replaced = {value: MISSING["uuid"] for value in world.ids.values() if re.fullmatch("[0-9a-f-]{36}", value)}
    replaced |= {channel.json["id"]: MISSING["uuid"], CANARY: "nobody"}

    def elsewhere(text: str) -> str:
        for value, missing in replaced.items():
            text = text.replace(value, missing)
        return text

    for method, path, body in asked:
        theirs = caller(method, path, body)
        nowhere = caller(method, elsewhere(path), orjson.loads(elsewhere(orjson.dumps(body).decode())))
        status, text = without_id(theirs)
        assert (status, elsewhere(text)) == without_id(nowhere), (path, body)
        assert status in (403, 404), (path, body, theirs.text)


def test_a_write_to_what_is_another_projects_looks_like_one_to_what_is_nowhere(
    call: Callable[..., Api], world: World
) -> None:
    caller = call(projects=["ours"])
    for (method, rule), (needed, reach) in TABLE.items():
        if method == "GET" or "<" not in rule or reach != "own" or needed == PUBLIC or not rule.startswith("/api/"):
            continue
        if rule.endswith(("/simulate", "/simulate/workloads", "/dry-runs")):
            continue  # of a text that is sent; the name may be new
        body = BODIES.get((method, rule))
        theirs = send(caller, method, filled(rule, world), body)
        nowhere = send(caller, method, path_of(rule, {"version": "1", "name": "canary-policy-2"}), body)
        assert without_id(theirs) == without_id(nowhere), (method, rule)


def without_id(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, re.sub(r'"request_id":"[^"]*"', "", answer.text)


def snapshot_of_theirs(database: Database, world: World) -> tuple[Any, ...]:
    with database.read() as session:
        return (
            policies.get(session, world.policy),
            projects.get(session, world.project),
            projects.members(session, world.project),
            exemptions.list_exemptions(session, frozenset({world.project})).items,
            scans.list_scans(session, frozenset({world.project})).items,
            registries.find(session, HOST_B),
            deliveries.get_hook(session, world.ids["webhook_id"], None),
            accounts.get_token(session, world.ids["token_id"]),
            accounts.get_user(session, world.ids["user_id"]),
            vex.get(session, world.ids["document_id"]),
        )
