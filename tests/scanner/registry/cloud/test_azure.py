"""Azure Container Registry: a client secret or the machine's identity becomes a refresh token of the registry."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from scanner.config import Secret
from scanner.errors import RefusedError, RemoteError, ScannerError, UsageError
from scanner.registry.auth import Credentials
from scanner.registry.cloud import azure
from scanner.registry.cloud.azure import Endpoints
from scanner.registry.cloud.base import CloudAccess, Surroundings
from tests.scanner.registry.cloud.fakes import SECRET, hostile, surroundings

HOST = "example.azurecr.io"
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
STORED = CloudAccess("acr", HOST, CLIENT, Secret(SECRET), TENANT)
ROLE = CloudAccess("acr", HOST, machine_role=True)
ENTRA = {"token_type": "Bearer", "expires_in": 3599, "access_token": "entra.access.token"}
MANAGED = {
    **ENTRA,
    "expires_in": "86399",
    "expires_on": "1790000000",
    "resource": "https://containerregistry.azure.net",
}
INSTANCE = "/metadata/identity/oauth2/token"


def places(server: HTTPServer) -> Endpoints:
    base = server.url_for("").rstrip("/")
    return Endpoints(base, f"{base}/oauth2/exchange", base)


def refresh(seconds: float = 10800) -> str:
    parts = ({"alg": "RS256"}, {"exp": int(time.time() + seconds), "aud": HOST})
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + ".c2ln"


def expect_exchange(server: HTTPServer, tenant: str = "") -> str:
    token = refresh()
    form = f"grant_type=access_token&service={HOST}&access_token=entra.access.token"
    form += f"&tenant={tenant}" if tenant else ""
    server.expect_oneshot_request("/oauth2/exchange", method="POST", data=form).respond_with_json(
        {"refresh_token": token}
    )
    return token


def test_a_client_secret_becomes_a_refresh_token(httpserver: HTTPServer) -> None:
    form = (
        "grant_type=client_credentials&scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default"
        f"&client_id={CLIENT}&client_secret={SECRET}"
    )
    httpserver.expect_oneshot_request(f"/{TENANT}/oauth2/v2.0/token", method="POST", data=form).respond_with_json(ENTRA)
    token = expect_exchange(httpserver, TENANT)
    found = azure.token(STORED, surroundings(), places(httpserver))
    httpserver.check()
    assert found.credentials == Credentials("", Secret(""), Secret(token))
    assert 10700 < found.seconds <= 10800
    assert token not in repr(found)


def test_workload_identity(httpserver: HTTPServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("service.account.token\n")
    environment = {
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_AUTHORITY_HOST": "https://evil.example/",  # the registry's cloud decides
    }
    form = (
        "grant_type=client_credentials&scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default"
        f"&client_id={CLIENT}&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        "&client_assertion=service.account.token"
    )
    httpserver.expect_oneshot_request(f"/{TENANT}/oauth2/v2.0/token", method="POST", data=form).respond_with_json(ENTRA)
    token = expect_exchange(httpserver, TENANT)
    found = azure.token(ROLE, surroundings(environment), places(httpserver))
    httpserver.check()
    assert found.credentials.identity_token.reveal() == token


def test_a_tenant_is_no_path(httpserver: HTTPServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    environment = {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"), "AZURE_TENANT_ID": "../evil"}
    with pytest.raises(UsageError, match="AZURE_TENANT_ID"):
        azure.token(ROLE, surroundings(environment), places(httpserver))


@pytest.mark.parametrize("client", ["", CLIENT])
def test_a_managed_identity(client: str, httpserver: HTTPServer) -> None:
    query = {"api-version": "2018-02-01", "resource": "https://containerregistry.azure.net"}
    query |= {"client_id": client} if client else {}
    httpserver.expect_oneshot_request(INSTANCE, headers={"Metadata": "true"}, query_string=query).respond_with_json(
        MANAGED
    )
    token = expect_exchange(httpserver)
    access = CloudAccess("acr", HOST, client, machine_role=True)
    found = azure.token(access, surroundings(), places(httpserver))
    httpserver.check()
    assert found.credentials.identity_token.reveal() == token


def test_the_identity_endpoint_of_an_app(httpserver: HTTPServer) -> None:
    environment = {"IDENTITY_ENDPOINT": httpserver.url_for("/msi/token"), "IDENTITY_HEADER": "header-secret"}
    query = {"api-version": "2019-08-01", "resource": "https://containerregistry.azure.net"}
    httpserver.expect_oneshot_request(
        "/msi/token", headers={"X-IDENTITY-HEADER": "header-secret"}, query_string=query
    ).respond_with_json(MANAGED)
    token = expect_exchange(httpserver)
    found = azure.token(ROLE, Surroundings(surroundings().settings, environment), places(httpserver))
    httpserver.check()
    assert found.credentials.identity_token.reveal() == token


def test_the_identity_endpoint_is_on_this_machine(httpserver: HTTPServer) -> None:
    environment = {"IDENTITY_ENDPOINT": "http://192.0.2.7/msi/token", "IDENTITY_HEADER": SECRET}
    with pytest.raises(RefusedError):
        azure.token(ROLE, surroundings(environment), places(httpserver))


def test_a_machine_without_an_identity_says_so() -> None:
    with pytest.raises(RemoteError, match="no identity of Azure") as raised:
        azure.token(ROLE, surroundings(), Endpoints("", "", "http://127.0.0.1:1"))
    assert raised.value.field == "machine_role"


def test_metadata_is_not_asked_for_a_client_secret(httpserver: HTTPServer) -> None:
    environment = {"IDENTITY_ENDPOINT": httpserver.url_for("/msi/token"), "IDENTITY_HEADER": "x"}
    httpserver.expect_request(f"/{TENANT}/oauth2/v2.0/token").respond_with_data("", 401)
    with pytest.raises(RemoteError):
        azure.token(STORED, surroundings(environment), places(httpserver))
    assert [request.path for request, _ in httpserver.log] == [f"/{TENANT}/oauth2/v2.0/token"]


@pytest.mark.parametrize("at", ["entra", "exchange", "metadata"])
@pytest.mark.parametrize("wrong", list(hostile()))
def test_hostile_answers_become_errors(wrong: str, at: str, httpserver: HTTPServer) -> None:
    path = {"entra": f"/{TENANT}/oauth2/v2.0/token", "exchange": "/oauth2/exchange", "metadata": INSTANCE}
    httpserver.expect_request(path[at]).respond_with_response(hostile()[wrong])
    httpserver.expect_request(path["entra"]).respond_with_json({**ENTRA, "access_token": SECRET})
    access = ROLE if at == "metadata" else STORED
    with pytest.raises(ScannerError) as raised:
        azure.token(access, surroundings(), places(httpserver))
    assert SECRET not in f"{raised.value} {raised.value.hint}"
    assert all(request.path != "/elsewhere" for request, _ in httpserver.log)


@pytest.mark.parametrize("answer", [{}, {"refresh_token": 5}, {"refresh_token": "a b"}, {"refresh_token": refresh(-5)}])
def test_a_refresh_token_of_a_wrong_shape_is_an_error(answer: dict[str, Any], httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/{TENANT}/oauth2/v2.0/token").respond_with_json(ENTRA)
    httpserver.expect_request("/oauth2/exchange").respond_with_json(answer)
    with pytest.raises(RemoteError):
        azure.token(STORED, surroundings(), places(httpserver))


@pytest.mark.parametrize("opaque", ["opaque", "a.b.c", "a.%%%.c", refresh(10**6), "a.bnVsbA.c"])
def test_a_refresh_token_is_kept_for_three_hours_at_most(opaque: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/{TENANT}/oauth2/v2.0/token").respond_with_json(ENTRA)
    httpserver.expect_request("/oauth2/exchange").respond_with_json({"refresh_token": opaque})
    assert azure.token(STORED, surroundings(), places(httpserver)).seconds == 10800


def test_a_refused_secret_names_the_fields(httpserver: HTTPServer) -> None:
    description = f"AADSTS7000215: Invalid client secret provided. {SECRET} Trace ID: 1"
    body = {"error": "invalid_client", "error_description": description, "error_codes": [7000215]}
    httpserver.expect_request(f"/{TENANT}/oauth2/v2.0/token").respond_with_json(body, 401)
    with pytest.raises(RemoteError, match=r"refused the client secret: AADSTS7000215$") as raised:
        azure.token(STORED, surroundings(), places(httpserver))
    assert "tenant, user name (client ID) and password" in raised.value.hint


def test_an_identity_without_the_role_says_so(httpserver: HTTPServer) -> None:
    httpserver.expect_request(f"/{TENANT}/oauth2/v2.0/token").respond_with_json(ENTRA)
    body = {"errors": [{"code": "UNAUTHORIZED", "message": SECRET}]}
    httpserver.expect_request("/oauth2/exchange").respond_with_json(body, 401)
    with pytest.raises(RemoteError, match=f"{HOST} refused the token of Microsoft Entra ID: UNAUTHORIZED") as raised:
        azure.token(STORED, surroundings(), places(httpserver))
    assert "AcrPull" in raised.value.hint


@pytest.mark.parametrize(
    ("zone", "authority"),
    [
        ("io", "https://login.microsoftonline.com"),
        ("us", "https://login.microsoftonline.us"),
        ("cn", "https://login.chinacloudapi.cn"),
    ],
)
def test_the_addresses_follow_from_the_host(zone: str, authority: str) -> None:
    found = Endpoints.of(f"example.azurecr.{zone}")
    assert found.authority == authority
    assert found.exchange == f"https://example.azurecr.{zone}/oauth2/exchange"


@pytest.mark.parametrize("host", ["azurecr.io", "example.azurecr.io.evil.example", "evil/example.azurecr.io", ""])
def test_no_other_host_is_asked(host: str) -> None:
    with pytest.raises(UsageError, match="not a registry of Azure"):
        Endpoints.of(host)
