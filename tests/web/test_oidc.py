"""Signing in at an identity provider: only an answer to this browser's own request, signed by that provider, for us,
now.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from joserfc.jwk import RSAKey
from werkzeug.test import TestResponse

from scanner import queue
from scanner.config import Secret, Settings
from scanner.errors import UsageError
from scanner.store import accounts, audit, projects
from scanner.store.session import Database
from tests.identity_provider import CLIENT, KEY, SECRET, FakeProvider, running, signed, unsigned
from tests.web.conftest import limited_app
from tests.web.test_auth import SAME
from web import create_app
from web.oidc import Provider, make


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with running() as provider:
        yield provider


@pytest.fixture
def oidc(settings: Settings, provider: FakeProvider) -> Settings:
    return replace(
        settings,
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT,
        oidc_client_secret=Secret(SECRET),
        oidc_roles=("devs=developer", "cn=sec,ou=x=security"),
    )


@pytest.fixture
def app(oidc: Settings, database: Database) -> OpenAPI:
    return create_app(oidc, database, queue.make_app(oidc))


def begin(client: FlaskClient, provider: FakeProvider, target: str = "") -> str:
    """The query that the provider sends the browser back with."""
    answer = client.get(f"/sign-in/oidc?{urlencode({'next': target})}")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(f"{provider.issuer}/authorize?")
    return provider.authorize(answer.headers["Location"])


def sign_in(client: FlaskClient, provider: FakeProvider, target: str = "") -> TestResponse:
    return client.get(f"/sign-in/oidc/callback?{begin(client, provider, target)}")


def test_who_the_provider_knows_is_signed_in_with_the_role_of_their_groups(
    app: OpenAPI, provider: FakeProvider, database: Database
) -> None:
    client = app.test_client()
    answer = sign_in(client, provider, "/images?verdict=deny")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/images?verdict=deny")
    assert client.get("/api/v1/images").status_code == 200
    assert client.get("/api/v1/audit-log").status_code == 403
    with database.read() as session:
        (user,) = accounts.list_users(session)
        assert (user.name, user.role, user.issuer) == ("ada", "developer", provider.issuer)
        assert user.signed_in_at is not None
        entry, made = audit.list_entries(session).items
        assert (entry.actor, entry.action, entry.detail) == ("ada", "session.begin", {"via": "oidc 127.0.0.1"})
        assert (made.actor, made.action, made.detail["name"]) == ("dockwarden", "user.create", "ada")


def test_role_and_memberships_are_those_of_the_last_sign_in(
    app: OpenAPI, provider: FakeProvider, database: Database
) -> None:
    with database.session() as session:
        projects.create(session, "shop", groups=["devs"])
        projects.create(session, "vault", groups=["cn=sec,ou=x"])
        projects.create(session, "kept")
    first = app.test_client()
    sign_in(first, provider)
    with database.session() as session:
        (user,) = accounts.list_users(session)
        assert user.projects == ("shop",)
        projects.add_member(session, "kept", user.id)
    provider.person = {**provider.person, "preferred_username": "renamed", "groups": ["cn=sec,ou=x"]}
    sign_in(app.test_client(), provider)
    with database.read() as session:
        (user,) = accounts.list_users(session)
        assert (user.name, user.role, user.projects) == ("ada", "security", ("kept", "vault"))
        (changed,) = audit.list_entries(session, audit.Filter(action="user.role")).items
        assert (changed.detail["before"], changed.detail["after"]) == ("developer", "security")
    assert first.get("/api/v1/images").status_code == 401  # signed out everywhere with the former role


def test_whoever_is_in_no_group_that_may_does_not_get_in(
    app: OpenAPI, provider: FakeProvider, database: Database
) -> None:
    provider.person = {"sub": "u2", "groups": ["strangers"]}
    answer = sign_in(app.test_client(), provider)
    assert answer.status_code == 401
    assert "none of your groups" in answer.text
    with database.read() as session:
        assert accounts.list_users(session) == ()


def test_a_default_role_lets_them_in_and_a_group_gives_more(
    oidc: Settings, provider: FakeProvider, database: Database
) -> None:
    known = make(replace(oidc, oidc_default_role="viewer"))
    assert known is not None
    assert [known.role(g) for g in ([], ["devs"], ["cn=sec,ou=x", "devs"])] == ["viewer", "developer", "security"]


def test_a_local_user_of_that_name_is_not_taken_over(app: OpenAPI, provider: FakeProvider, database: Database) -> None:
    with database.session() as session:
        local = accounts.create_user(session, "ada", "correct horse battery", "admin")
    client = app.test_client()
    sign_in(client, provider)
    assert client.get("/api/v1/users").status_code == 403
    with database.read() as session:
        names = {user.name: user.role for user in accounts.list_users(session)}
        assert names == {"ada": "admin", "ada@127.0.0.1": "developer"} or names["ada"] == "admin"
        assert accounts.get_user(session, local.id).issuer == ""


def test_a_user_of_the_provider_has_no_password_here(app: OpenAPI, provider: FakeProvider, database: Database) -> None:
    sign_in(app.test_client(), provider)
    for password in ("", "x", "correct horse battery"):
        answer = app.test_client().post("/sign-in", data={"name": "ada", "password": password}, headers=SAME)
        assert answer.status_code == 401


def test_a_disabled_user_stays_out(app: OpenAPI, provider: FakeProvider, database: Database) -> None:
    sign_in(app.test_client(), provider)
    with database.session() as session:
        (user,) = accounts.list_users(session)
        accounts.set_disabled(session, user.id, True)
    answer = sign_in(app.test_client(), provider)
    assert (answer.status_code, "disabled" in answer.text) == (401, True)


def test_groups_may_come_from_userinfo_of_the_same_person_only(app: OpenAPI, provider: FakeProvider) -> None:
    provider.person = {"sub": "u3", "preferred_username": "grace"}
    provider.userinfo = {"sub": "u3", "groups": ["devs"]}
    assert sign_in(app.test_client(), provider).status_code == 303
    provider.userinfo = {"sub": "u4", "groups": ["devs"]}
    answer = sign_in(app.test_client(), provider)
    assert (answer.status_code, "another subject" in answer.text) == (401, True)


def test_groups_are_read_with_the_access_token_of_the_id_token_only(app: OpenAPI, provider: FakeProvider) -> None:
    digest = hashlib.sha256(b"access").digest()
    own = base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
    for at_hash, status in ((own, 303), (own[:-1] + "A", 401), (None, 401), ([own], 401), ("", 401)):
        provider.person = {"sub": "u3", "preferred_username": "grace", "at_hash": at_hash}
        provider.userinfo = {"sub": "u3", "groups": ["devs"]}
        answer = sign_in(app.test_client(), provider)
        assert answer.status_code == status
        assert ("does not belong to the ID token" in answer.text) is (status == 401)


# Tokens that do not hold


def changed(**claims: Any) -> Callable[[dict[str, Any]], str]:
    return lambda real: signed({k: v for k, v in {**real, **claims}.items() if v is not None})


def confused(real: dict[str, Any]) -> str:
    """Signed with HMAC under the provider's public key, which everybody has."""
    parts = ({"alg": "HS256", "kid": "one"}, real)
    text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mac = hmac.digest(KEY.as_pem(private=False), text, "sha256")
    return (text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def injected(real: dict[str, Any]) -> str:
    """Signed with the attacker's key, which the token itself names."""
    own = RSAKey.generate_key(2048, private=True)
    return signed(real, own, jwk=own.as_dict(private=False), jku="https://evil.example/keys")


BAD: dict[str, Callable[[dict[str, Any]], str]] = {
    "alg none": unsigned,
    "key confusion": confused,
    "injected key": injected,
    "another key": lambda real: signed(real, RSAKey.generate_key(2048, private=True)),
    "unknown kid": lambda real: signed(real, RSAKey.generate_key(2048, private=True), kid="two"),
    "kid is a path": lambda real: signed(real, RSAKey.generate_key(2048, private=True), kid="../../dev/null"),
    "changed after signing": lambda real: signed(real)[:-8] + "AAAAAAAA",
    "no dots": lambda real: "token",
    "empty": lambda real: "",
    "wrong issuer": changed(iss="https://evil.example"),
    "issuer with a slash": lambda real: signed({**real, "iss": real["iss"] + "/"}),
    "no issuer": changed(iss=None),
    "wrong audience": changed(aud="another"),
    "no audience": changed(aud=None),
    "several audiences without azp": changed(aud=[CLIENT, "another"]),
    "issued to another": changed(aud=[CLIENT, "another"], azp="another"),
    "expired": changed(exp=int(time.time()) - 3600),
    "no expiry": changed(exp=None),
    "expiry is a text": changed(exp="2099"),
    "from the future": changed(iat=int(time.time()) + 3600),
    "not yet": changed(nbf=int(time.time()) + 3600),
    "wrong nonce": changed(nonce="another"),
    "no nonce": changed(nonce=None),
    "no subject": changed(sub=None),
    "subject is a number": changed(sub=1),
}


@pytest.mark.parametrize("what", BAD)
def test_a_token_that_does_not_hold_signs_nobody_in(
    app: OpenAPI, provider: FakeProvider, database: Database, what: str
) -> None:
    provider.sign = BAD[what]
    client = app.test_client()
    answer = sign_in(client, provider)
    assert answer.status_code == 401, what
    assert client.get_cookie("dockwarden") is None
    with database.read() as session:
        assert accounts.list_users(session) == ()


def test_keys_that_were_changed_are_found(app: OpenAPI, oidc: Settings, provider: FakeProvider) -> None:
    now = [1000.0]
    app.extensions["dockwarden"] = replace(app.extensions["dockwarden"], provider=Provider(oidc, lambda: now[0]))
    assert sign_in(app.test_client(), provider).status_code == 303
    new = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"}, private=True)
    provider.keys, provider.sign = [new], lambda real: signed(real, new, kid="two")
    assert sign_in(app.test_client(), provider).status_code == 401, "its keys are a moment old"
    now[0] += 61
    assert sign_in(app.test_client(), provider).status_code == 303


def test_a_provider_that_changes_or_is_down_for_minutes_is_still_known(
    app: OpenAPI, oidc: Settings, provider: FakeProvider
) -> None:
    now = [1000.0]
    app.extensions["dockwarden"] = replace(app.extensions["dockwarden"], provider=Provider(oidc, lambda: now[0]))
    client = app.test_client()
    begin(client, provider)
    provider.metadata = {"issuer": "https://evil.example"}
    now[0] += 3601
    begin(client, provider)
    now[0] += 700
    assert client.get("/sign-in/oidc").status_code == 503
    provider.metadata = {}
    assert client.get("/sign-in/oidc").status_code == 503, "the provider is not asked again at once"
    now[0] += 6
    begin(client, provider)


# Answers to nobody's request


def test_another_browser_cannot_finish_it(app: OpenAPI, provider: FakeProvider) -> None:
    """Login CSRF: an attacker's answer in a victim's browser."""
    query = begin(app.test_client(), provider)
    victim = app.test_client()
    assert victim.get(f"/sign-in/oidc/callback?{query}").status_code == 401
    begin(victim, provider)
    assert victim.get(f"/sign-in/oidc/callback?{query}").status_code == 401
    assert victim.get_cookie("dockwarden") is None


@pytest.mark.parametrize(
    "changes",
    [{"state": "x"}, {"state": ""}, {"iss": "https://evil.example"}, {"error": "access_denied"}, {"code": ""}],
)
def test_an_answer_that_was_changed_is_refused(app: OpenAPI, provider: FakeProvider, changes: dict[str, str]) -> None:
    client = app.test_client()
    query = {name: values[0] for name, values in parse_qs(begin(client, provider)).items()} | changes
    assert client.get(f"/sign-in/oidc/callback?{urlencode(query)}").status_code == 401


def test_an_answer_is_good_for_one_time(app: OpenAPI, provider: FakeProvider) -> None:
    client = app.test_client()
    query = begin(client, provider)
    cookie = client.get_cookie("dockwarden-oidc")
    assert cookie is not None
    assert client.get(f"/sign-in/oidc/callback?{query}").status_code == 303
    assert client.get_cookie("dockwarden-oidc") is None
    client.set_cookie("dockwarden-oidc", cookie.value)
    assert client.get(f"/sign-in/oidc/callback?{query}").status_code == 401


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_coming_back_leads_nowhere_else(app: OpenAPI, provider: FakeProvider, target: str) -> None:
    answer = sign_in(app.test_client(), provider, target)
    assert urlsplit(answer.headers["Location"]).netloc == ""


def test_what_the_browser_keeps_tells_nothing(app: OpenAPI, provider: FakeProvider) -> None:
    client = app.test_client()
    begin(client, provider)
    cookie = client.get_cookie("dockwarden-oidc")
    assert cookie is not None
    assert cookie.http_only
    assert provider.asked[0]["state"] not in cookie.value
    assert SECRET not in cookie.value


# Providers that do not answer as they should


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": None},
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://user@evil.example/"},
    ],
)
def test_metadata_that_leads_astray_is_not_followed(
    app: OpenAPI, provider: FakeProvider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    answer = app.test_client().get("/sign-in/oidc")
    assert (answer.status_code, "Location" in answer.headers) == (503, False)


def test_a_provider_that_is_away_is_told_and_passwords_still_work(
    settings: Settings, oidc: Settings, database: Database
) -> None:
    away = replace(oidc, oidc_issuer="http://127.0.0.1:1")
    client = create_app(away, database, queue.make_app(settings)).test_client()
    assert client.get("/sign-in/oidc").status_code == 503
    with database.session() as session:
        accounts.create_user(session, "ada", "correct horse battery", "viewer")
    answer = client.post("/sign-in", data={"name": "ada", "password": "correct horse battery"}, headers=SAME)
    assert answer.status_code == 303


def test_without_a_provider_there_is_no_such_way_in(settings: Settings, database: Database) -> None:
    client = create_app(settings, database, queue.make_app(settings)).test_client()
    assert client.get("/sign-in/oidc").status_code == 404
    assert client.get("/sign-in/oidc/callback?code=x&state=y").status_code in (401, 404)
    assert "Sign in with" not in client.get("/sign-in").text


@pytest.mark.parametrize(
    "changes",
    [
        {"oidc_issuer": "http://idp.example"},
        {"oidc_issuer": "idp.example"},
        {"oidc_client_id": ""},
        {"oidc_roles": ("devs",)},
        {"oidc_roles": ("devs=root",)},
        {"oidc_default_role": "root"},
    ],
)
def test_settings_that_do_not_fit_are_told_at_the_start(oidc: Settings, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        make(replace(oidc, **changes))
    assert refused.value.hint or "oidc" in str(refused.value)
    assert SECRET not in json.dumps([str(refused.value), refused.value.hint])


def test_answers_of_the_provider_are_limited_by_address(oidc: Settings, database: Database) -> None:
    """Each answer makes the server ask the provider, which a stranger must not be able to have done without limit."""
    client = limited_app(oidc, database).test_client()
    statuses = [client.get("/sign-in/oidc/callback?code=x&state=y").status_code for _ in range(22)]
    assert 429 not in statuses[:20]
    assert statuses[20:] == [429, 429]
    elsewhere = {"REMOTE_ADDR": "198.51.100.7"}
    assert client.get("/sign-in/oidc/callback?code=x&state=y", environ_overrides=elsewhere).status_code != 429
