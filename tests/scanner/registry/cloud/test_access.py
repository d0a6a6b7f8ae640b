"""Tokens are kept while they are valid, for this access only, and are dropped when the registry refuses them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.config import Secret, Settings
from scanner.errors import RemoteError
from scanner.model.cloud_registry import KINDS, STATIC
from scanner.model.reference import Reference
from scanner.registry.auth import Credentials, CredentialStore
from scanner.registry.client import Access, RegistryClient
from scanner.registry.cloud import access as access_module
from scanner.registry.cloud.access import CloudCredentials, Tokens
from scanner.registry.cloud.base import CloudAccess, Token

ACCESS = CloudAccess("ecr", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "AKIDEXAMPLE00000", Secret("secret-1"))


class Cloud:
    """Counts what it gives out."""

    def __init__(self, seconds: float = 3600) -> None:
        self.given, self.seconds = 0, seconds

    def __call__(self) -> Token:
        self.given += 1
        return Token(Credentials("AWS", Secret(f"password-{self.given}")), self.seconds)


@pytest.mark.parametrize(("seconds", "valid"), [(3600, 3299), (43200, 42899), (100, 79)])
def test_a_token_is_used_until_shortly_before_its_end(
    seconds: float, valid: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(access_module.time, "monotonic", lambda: now[0])
    cloud, tokens = Cloud(seconds), Tokens()
    assert tokens.get(ACCESS, cloud).password.reveal() == "password-1"
    now[0] += valid
    assert tokens.get(ACCESS, cloud).password.reveal() == "password-1"
    now[0] += 2
    assert tokens.get(ACCESS, cloud).password.reveal() == "password-2"


def test_a_changed_secret_is_another_access() -> None:
    cloud, tokens = Cloud(), Tokens()
    tokens.get(ACCESS, cloud)
    assert tokens.get(replace(ACCESS, password=Secret("secret-2")), cloud).password.reveal() == "password-2"
    assert tokens.get(replace(ACCESS, host="other"), cloud).password.reveal() == "password-3"
    assert tokens.get(ACCESS, cloud).password.reveal() == "password-1"


def test_what_fails_is_not_kept() -> None:
    def fail() -> Token:
        raise RemoteError("no")

    tokens = Tokens()
    with pytest.raises(RemoteError):
        tokens.get(ACCESS, fail)
    assert tokens.get(ACCESS, Cloud()).password.reveal() == "password-1"


def test_a_refused_token_is_dropped_once_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(access_module.time, "monotonic", lambda: now[0])
    cloud, tokens = Cloud(), Tokens()
    tokens.get(ACCESS, cloud)
    assert not tokens.drop(ACCESS)  # a registry that refuses everything costs the cloud no request each
    now[0] += 61
    assert tokens.drop(ACCESS)
    assert tokens.get(ACCESS, cloud).password.reveal() == "password-2"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "_MAX_CACHED", 10)
    cloud, tokens = Cloud(), Tokens()
    for number in range(30):
        tokens.get(replace(ACCESS, host=f"h{number}"), cloud)
    assert len(tokens._kept) == 10


def test_nothing_shows_a_secret() -> None:
    credentials = CloudCredentials(ACCESS, Settings())
    assert "secret-1" not in f"{credentials!r} {credentials} {ACCESS!r}"


def test_every_kind_has_a_client() -> None:
    assert set(access_module._CLIENTS) == set(KINDS) - {STATIC}


def test_a_scan_outlives_its_token(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry (basic, as ECR) stops accepting the password in the middle of a scan: a new one is obtained."""
    from werkzeug import Response

    now, valid = [1000.0], ["QVdTOnBhc3N3b3JkLTE="]  # AWS:password-1
    cloud, tokens = Cloud(), Tokens()
    host = f"localhost:{httpserver.port}"
    mine = replace(ACCESS, host=host)

    def answer(request: Request) -> Response:
        if request.headers.get("Authorization") != f"Basic {valid[0]}":
            return Response("", 401, {"WWW-Authenticate": 'Basic realm="https://example/",service="ecr.amazonaws.com"'})
        return Response("{}", headers={"Docker-Content-Digest": "sha256:" + "a" * 64})

    httpserver.expect_request("/v2/app/manifests/1").respond_with_handler(answer)
    monkeypatch.setattr(access_module, "_CLIENTS", {"ecr": lambda access, around: cloud()})
    store = CredentialStore(Settings(), {host: CloudCredentials(mine, Settings(), tokens)}, personal=False)
    with RegistryClient(host, Settings(), store, Access(insecure=True)) as client:
        client.tag_digest(Reference.parse(f"{host}/app:1"))
        assert cloud.given == 1
        real = access_module.time.monotonic
        monkeypatch.setattr(access_module, "time", _Clock(real, now))
        now[0] = 120.0
        valid[0] = "QVdTOnBhc3N3b3JkLTI="  # AWS:password-2
        client.tag_digest(Reference.parse(f"{host}/app:1"))
    assert cloud.given == 2


def test_a_refresh_token_of_azure_answers_the_registrys_challenge(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the registry does it: its own token service takes the refresh token, for each scope."""
    host = f"localhost:{httpserver.port}"
    realm = f'Bearer realm="http://{host}/oauth2/token",service="{host}",scope="repository:app:pull"'

    def manifest(request: Request) -> Response:
        if request.headers.get("Authorization") != "Bearer registry-access":
            return Response("", 401, {"WWW-Authenticate": realm})
        return Response("{}", headers={"Docker-Content-Digest": "sha256:" + "a" * 64})

    def exchange(request: Request) -> Response:
        form = request.form.to_dict()
        assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "refresh-1")
        assert (form["service"], form["scope"]) == (host, "repository:app:pull")
        return Response('{"access_token": "registry-access"}')

    httpserver.expect_request("/v2/app/manifests/1").respond_with_handler(manifest)
    httpserver.expect_request("/oauth2/token", method="POST").respond_with_handler(exchange)
    granted = Token(Credentials("", Secret(""), Secret("refresh-1")), 3600)
    monkeypatch.setattr(access_module, "_CLIENTS", {"acr": lambda access, around: granted})
    mine = CloudCredentials(CloudAccess("acr", host, machine_role=True), Settings(), Tokens())
    store = CredentialStore(Settings(), {host: mine}, personal=False)
    with RegistryClient(host, Settings(), store, Access(insecure=True)) as client:
        assert client.tag_digest(Reference.parse(f"{host}/app:1"))


class _Clock:
    """The clock of the kept tokens only, so that the client's own time limits stay real."""

    def __init__(self, real: object, ahead: list[float]) -> None:
        self._real, self._ahead = real, ahead

    def monotonic(self) -> float:
        return self._real() + self._ahead[0]  # type: ignore[operator]
