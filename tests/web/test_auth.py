"""Who gets in: passwords, sessions, forms that are ours, and the throttle on guessing."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from scanner import queue
from scanner.config import Settings
from scanner.services import tokens
from scanner.store import accounts
from scanner.store.schema import user, web_session
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import KEY, Api, Worker, limited_app
from web import create_app
from web.auth import ROLES, permission
from web.throttle import SIGN_IN_ACCOUNT_FAILURES, SIGN_IN_FAILURES

PASSWORD = "correct horse battery"
SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def people(database: Database) -> dict[str, str]:
    """A user of every role: role -> id. Their hashes are cheap ones, which argon2 reads as it reads any."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    ids = {role: str(uuid.uuid4()) for role in ROLES}
    common = {"password_hash": cheap, "disabled": False, "created_at": datetime.now(UTC)}
    with database.session() as session:
        session.execute(user.insert(), [{"id": ids[role], "name": role, "role": role, **common} for role in ROLES])
    return ids


def sign_in(
    client: FlaskClient, name: str = "admin", password: str = PASSWORD, place: str = "127.0.0.1", **headers: str
) -> TestResponse:
    where, form = {"REMOTE_ADDR": place}, {"name": name, "password": password}
    return client.post("/sign-in", data=form, headers=headers or SAME, environ_overrides=where)


def token_of(client: FlaskClient, app: OpenAPI) -> str:
    """The form token, as one of our pages shows it to the browser with this session."""
    from web.auth import csrf_token

    cookie = client.get_cookie("dockwarden")
    with app.test_request_context("/", headers={"Cookie": f"dockwarden={cookie.value if cookie else ''}"}):
        return csrf_token()


@pytest.mark.parametrize("role", ROLES)
def test_a_session_may_do_what_its_role_may(app: OpenAPI, people: dict[str, str], role: str) -> None:
    client = app.test_client()
    assert sign_in(client, role).status_code == 303
    paths = {"read": "/api/v1/images", "audit": "/api/v1/audit-log", "manage": "/api/v1/users"}
    for scope, path in paths.items():
        assert (client.get(path).status_code == 200) == (scope in ROLES[role]), path


@pytest.mark.parametrize(("name", "password"), [("admin", "wrong"), ("nobody", PASSWORD), ("", ""), ("admin", "")])
def test_a_wrong_name_and_a_wrong_password_are_one_answer(
    app: OpenAPI, people: dict[str, str], name: str, password: str
) -> None:
    answer = sign_in(app.test_client(), name, password)
    assert answer.status_code == 401
    assert "the name or the password is wrong" in answer.text
    assert "Set-Cookie" not in answer.headers


def test_the_cookie_is_for_the_server_alone(
    app: OpenAPI, settings: Settings, database: Database, people: object
) -> None:
    cookie = sign_in(app.test_client()).headers["Set-Cookie"]
    assert cookie.startswith("dockwarden=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    secure = create_app(replace(settings, public_url="https://d.example"), database, queue.make_app(settings))
    cookie = sign_in(secure.test_client()).headers["Set-Cookie"]
    assert cookie.startswith("__Host-dockwarden=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_signing_in_begins_a_new_session_and_ends_the_one_before(app: OpenAPI, people: object) -> None:
    client = app.test_client()
    client.set_cookie("dockwarden", "chosen-by-an-attacker")
    sign_in(client)
    first = client.get_cookie("dockwarden").value  # type: ignore[union-attr]
    assert first != "chosen-by-an-attacker"
    sign_in(client)
    second = client.get_cookie("dockwarden").value  # type: ignore[union-attr]
    assert second != first
    former = app.test_client()
    former.set_cookie("dockwarden", first)
    assert former.get("/api/v1/images").status_code == 401


def test_what_is_stored_of_a_session_opens_nothing(app: OpenAPI, database: Database, people: object) -> None:
    client = app.test_client()
    sign_in(client)
    with database.read() as session:
        (stored,) = session.execute(sa.select(web_session.c.id_hash)).scalars()
    thief = app.test_client()
    thief.set_cookie("dockwarden", stored)
    assert thief.get("/api/v1/images").status_code == 401


def test_signing_out_ends_it(app: OpenAPI, people: object) -> None:
    client = app.test_client()
    sign_in(client)
    cookie = client.get_cookie("dockwarden").value  # type: ignore[union-attr]
    assert client.post("/sign-out", data={"csrf_token": token_of(client, app)}, headers=SAME).status_code == 303
    client.set_cookie("dockwarden", cookie)
    assert client.get("/api/v1/images").status_code == 401


@pytest.mark.parametrize("what", ["idle", "old", "disabled"])
def test_a_session_ends_by_itself(app: OpenAPI, database: Database, people: dict[str, str], what: str) -> None:
    client = app.test_client()
    sign_in(client)
    now = datetime.now(UTC)
    with database.session() as session:
        if what == "idle":
            session.execute(web_session.update().values(seen_at=now - timedelta(minutes=31)))
        elif what == "old":
            session.execute(web_session.update().values(expires_at=now - timedelta(seconds=1)))
        else:
            accounts.set_disabled(session, people["admin"], True)
    assert client.get("/api/v1/images").status_code == 401


def test_an_api_token_opens_a_session_that_ends_with_it(app: OpenAPI, database: Database) -> None:
    with database.session() as session:
        token, text = accounts.create_token(session, "t", ["read"], KEY)
    client = app.test_client()
    assert client.post("/sign-in", data={"token": text.reveal()}, headers=SAME).status_code == 303
    assert client.get("/api/v1/images").status_code == 200
    assert client.get("/api/v1/users").status_code == 403
    with database.session() as session:
        accounts.revoke_token(session, token.id)
    assert client.get("/api/v1/images").status_code == 401


def test_a_session_in_use_does_not_become_idle(app: OpenAPI, database: Database, people: object) -> None:
    client = app.test_client()
    sign_in(client)
    before = datetime.now(UTC) - timedelta(minutes=29)
    with database.session() as session:
        session.execute(web_session.update().values(seen_at=before))
    assert client.get("/api/v1/images").status_code == 200
    with database.read() as session:
        assert session.execute(sa.select(web_session.c.seen_at)).scalar_one() > before + timedelta(minutes=20)


@pytest.mark.parametrize("text", ["", "dw_", "dw_00000000_" + "a" * 43, "not a token"])
def test_a_token_that_is_none_opens_no_session(app: OpenAPI, text: str) -> None:
    answer = app.test_client().post("/sign-in", data={"token": text}, headers=SAME)
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


def test_signing_out_with_a_token_ends_no_session(app: OpenAPI, make_token: Callable[..., str]) -> None:
    headers = {"Authorization": f"Bearer {make_token()}"}
    client = app.test_client()
    assert client.post("/sign-out", headers=headers).status_code == 303
    assert client.get("/api/v1/images", headers=headers).status_code == 200


def test_a_view_with_a_permission_that_nobody_knows_is_not_built() -> None:
    with pytest.raises(ValueError, match="unknown permission: raed"):
        permission("raed")


# Requests that another site makes a browser send


def test_a_changing_request_needs_our_origin_and_our_token(app: OpenAPI, people: object) -> None:
    client = app.test_client()
    sign_in(client)
    token = token_of(client, app)
    right = {**SAME, "X-CSRFToken": token}
    wrong: list[dict[str, str]] = [
        {},
        SAME,
        {"X-CSRFToken": token},
        {**right, "X-CSRFToken": token[::-1]},
        {**right, "X-CSRFToken": ""},
        {**right, "Sec-Fetch-Site": "cross-site"},
        {**right, "Sec-Fetch-Site": "same-site"},
        {"X-CSRFToken": token, "Origin": "https://evil.example"},
        {"X-CSRFToken": token, "Origin": "null"},
        {"X-CSRFToken": token, "Origin": "http://localhost.evil.example"},
    ]
    for number, headers in enumerate(wrong):
        answer = client.post("/api/v1/projects", json={"name": f"p{number}"}, headers=headers)
        assert (answer.status_code, answer.json["reason"]) == (403, "csrf"), headers
    assert [p["name"] for p in client.get("/api/v1/projects").json["items"]] == ["default"]
    assert client.post("/api/v1/projects", json={"name": "ours"}, headers=right).status_code == 201
    old_browser = {"X-CSRFToken": token, "Origin": "http://localhost"}
    assert client.post("/api/v1/projects", json={"name": "old"}, headers=old_browser).status_code == 201


def test_the_token_of_one_session_is_not_anothers(app: OpenAPI, people: object) -> None:
    mine, theirs = app.test_client(), app.test_client()
    sign_in(mine)
    sign_in(theirs, "developer")
    headers = {**SAME, "X-CSRFToken": token_of(theirs, app)}
    assert mine.post("/api/v1/projects", json={"name": "p"}, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"X": "y"}])
def test_nobody_is_signed_in_by_another_site(app: OpenAPI, people: object, headers: dict[str, str]) -> None:
    answer = sign_in(app.test_client(), **headers)
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_a_bearer_token_needs_no_form_token(api: Api) -> None:
    assert api("POST", "/projects", {"name": "p"}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 201


def test_a_wrong_bearer_token_is_not_saved_by_a_cookie(app: OpenAPI, people: object) -> None:
    client = app.test_client()
    sign_in(client)
    assert client.get("/api/v1/images", headers={"Authorization": "Bearer wrong"}).status_code == 401


# Guessing


def test_guessing_a_password_is_slow(limited: OpenAPI, people: object) -> None:
    client = limited.test_client()
    statuses = [sign_in(client, "admin", f"guess {n}").status_code for n in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    assert sign_in(client, "ADMIN").status_code == 429
    assert sign_in(client, "developer").status_code == 303


def test_guessing_the_password_of_ones_own_session_is_slow(limited: OpenAPI, people: object) -> None:
    """A session that was left open does not give its password away."""
    client = limited.test_client()
    sign_in(client)
    headers = {**SAME, "X-CSRFToken": token_of(client, limited)}
    guess = {"current": "a guess", "new": "another horse battery"}
    statuses = [client.put("/api/v1/account/password", json=guess, headers=headers).status_code for _ in range(7)]
    assert 429 not in statuses[:5]
    assert statuses[5:] == [429] * 2


def test_the_own_password_is_changed_over_the_api(app: OpenAPI, people: object) -> None:
    client = app.test_client()
    sign_in(client)
    headers = {**SAME, "X-CSRFToken": token_of(client, app)}
    new = {"current": PASSWORD, "new": "another horse battery"}
    assert client.put("/api/v1/account/password", json=new, headers=headers).status_code in (200, 204)
    assert sign_in(app.test_client(), "admin").status_code == 401
    assert sign_in(app.test_client(), "admin", "another horse battery").status_code == 303


def elsewhere(number: int) -> str:
    return f"198.51.{number // 250}.{number % 250 + 1}"


def test_wrong_passwords_from_elsewhere_keep_nobody_out(limited: OpenAPI, people: object) -> None:
    stranger, person = limited.test_client(), limited.test_client()
    for number in range(15):
        sign_in(stranger, "admin", "wrong", place=elsewhere(number % 3))
    assert sign_in(stranger, "admin", "wrong", place=elsewhere(0)).status_code == 429
    assert sign_in(person, "admin").status_code == 303


def test_when_many_guess_the_known_place_gets_in(limited: OpenAPI, people: object) -> None:
    """New places wait then, whatever they send; a browser in which the person signed in before does not, even from
    another address.
    """
    person, stranger = limited.test_client(), limited.test_client()
    assert sign_in(person, "admin").status_code == 303
    assert person.post("/sign-out", data={"csrf_token": token_of(person, limited)}, headers=SAME).status_code == 303
    throttle = limited.extensions["dockwarden"].throttle
    for _ in range(int(SIGN_IN_ACCOUNT_FAILURES.burst)):  # as so many wrong passwords from as many addresses
        throttle.spend("sign-in-account-failures", "admin", SIGN_IN_ACCOUNT_FAILURES)
    assert sign_in(stranger, "admin", place=elsewhere(7)).status_code == 429
    assert sign_in(stranger, "developer", place=elsewhere(8)).status_code == 303
    assert sign_in(person, "Admin", "wrong", place=elsewhere(9)).status_code == 401
    assert sign_in(person, "admin", place=elsewhere(9)).status_code == 303


def test_the_cookie_of_a_place_is_good_for_one_account_and_a_few_tries(limited: OpenAPI, people: object) -> None:
    person = limited.test_client()
    assert sign_in(person, "developer").status_code == 303
    statuses = [sign_in(person, "developer", "wrong").status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    for _ in range(int(SIGN_IN_FAILURES.burst)):
        limited.extensions["dockwarden"].throttle.spend("sign-in-failures", "*", SIGN_IN_FAILURES)
    assert sign_in(person, "admin", place=elsewhere(1)).status_code == 429


def test_spraying_a_password_over_accounts_is_slow(limited: OpenAPI, people: object) -> None:
    client = limited.test_client()
    statuses = [sign_in(client, f"user{n}", "Summer2026!").status_code for n in range(22)]
    assert statuses[:20] == [401] * 20
    assert statuses[20:] == [429] * 2


def test_guessing_tokens_is_slow_and_does_not_hurt_others(limited: OpenAPI, make_token: Callable[..., str]) -> None:
    client, good = limited.test_client(), {"Authorization": f"Bearer {make_token()}"}
    answers = [client.get("/api/v1/images", headers={"Authorization": f"Bearer dw_{n}"}) for n in range(62)]
    assert [a.status_code for a in answers[:60]] == [401] * 60
    assert answers[61].status_code == 429
    assert int(answers[61].headers["Retry-After"]) >= 1
    # Everybody has one address behind a proxy or a NAT: guesses of a stranger there must not stop the others.
    assert client.get("/api/v1/images", headers=good).status_code == 200
    assert client.get("/api/v1/images", headers={"Authorization": "Bearer dw_x"}).status_code == 429


def test_guessing_tokens_stops_neither_the_gate_nor_a_door(limited: OpenAPI, make_token: Callable[..., str]) -> None:
    """An API server takes 429 for a webhook that is away, and with failurePolicy Ignore admits anything."""
    client, question = limited.test_client(), {"image": "registry.example.com/shop/cart@sha256:" + "1" * 64}
    gate, admission, pull = (make_token(scope) for scope in ("gate", "admission", "pull"))
    calls = {
        "/api/v1/gate": (gate, "post"),
        f"/adapters/kubernetes/admit/{admission}": ("", "post"),
        f"/adapters/registry/authorize/{pull}": ("", "get"),
    }
    for _ in range(62):
        last = client.post("/adapters/kubernetes/admit/dw_wrong", json={})
    assert last.status_code == 429
    for path, (token, method) in calls.items():
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = client.open(path, method=method, json=question, headers=headers)
        assert answer.status_code not in (401, 429), path


def test_one_token_cannot_take_the_whole_service(limited: OpenAPI, make_token: Callable[..., str]) -> None:
    client, headers = limited.test_client(), {"Authorization": f"Bearer {make_token('scan')}"}
    services = limited.extensions["dockwarden"]
    with limited.test_request_context():
        from web.throttle import SCANS

        services.throttle.take("scans", "default", SCANS, cost=SCANS.burst)
    answer = client.post("/api/v1/scans", json={"image": "a/b:1"}, headers=headers)
    assert answer.status_code == 429
    assert answer.json["reason"] == "rate_limited"


def test_the_address_is_the_proxys_word_only_where_there_is_a_proxy(
    settings: Settings, database: Database, people: object
) -> None:
    """Each request claims another address. Without a trusted proxy it is one source all the same."""
    for proxies, expected in ((0, 429), (1, 401)):
        client = limited_app(replace(settings, trusted_proxies=proxies), database).test_client()
        for number in range(21):
            headers = {**SAME, "X-Forwarded-For": f"192.0.2.{number}"}
            answer = sign_in(client, f"user{number}", "Summer2026!", **headers)
        assert answer.status_code == expected


# The first run


def test_the_first_run_makes_one_admin_token_once(app: OpenAPI, database: Database) -> None:
    with database.session() as session:
        text = tokens.bootstrap(session, KEY)
        assert text is not None
        assert tokens.bootstrap(session, KEY) is None
    assert re.fullmatch(r"dw_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", text.reveal())
    api = Api(app.test_client(), text.reveal())
    assert api("POST", "/tokens", {"name": "ci", "scopes": ["gate"]}).status_code == 201


def test_what_is_stored_is_answered_while_nothing_can_be_written(
    app: OpenAPI, database: Database, people: dict[str, str], call: Callable[..., Api], worker: Worker
) -> None:
    """A full disk, or a standby of the database: that a token is used cannot be written, and reading needs it not."""
    call()("POST", "/scans", {"image": f"{make.REPOSITORY}:1"})
    found = make.report("good", packages=[make.package(1)])
    worker.finish(found)
    client, readers = app.test_client(), [call(), call()]
    sign_in(client)
    with database.session() as session:
        session.execute(web_session.update().values(seen_at=datetime.now(UTC) - timedelta(minutes=5)))
    sa.event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = ON"))
    database.engine.dispose()
    assert readers[0]("GET", "/images").status_code == 200
    asked = readers[1]("POST", "/gate", {"image": f"{make.REPOSITORY}@{found.digest}"})
    assert (asked.status_code, asked.json["digest"]) == (200, found.digest)
    assert client.get("/images", headers={"Accept": "text/html"}).status_code == 200
    changed = readers[0]("POST", "/scans", {"image": f"{make.REPOSITORY}:2"})
    assert (changed.status_code, changed.json["reason"]) == (503, "db_read_only")
    assert int(changed.headers["Retry-After"]) >= 1
