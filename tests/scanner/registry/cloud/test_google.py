"""Google's registries: a service account's key and the metadata server give an access token; hostile answers do not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import RSAKey
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.config import Secret
from scanner.errors import RefusedError, RemoteError, ScannerError
from scanner.registry.auth import Credentials
from scanner.registry.cloud import google
from scanner.registry.cloud.base import CloudAccess, Surroundings
from scanner.registry.cloud.google import Endpoints
from tests.scanner.registry.cloud.fakes import SECRET, hostile, surroundings

HOST = "europe-docker.pkg.dev"
KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
FILE = {
    "type": "service_account",
    "project_id": "example",
    "private_key_id": "0123456789abcdef",
    "private_key": PEM,
    "client_email": "scan@example.iam.gserviceaccount.com",
    "client_id": "1234567890",
    "token_uri": "https://oauth2.googleapis.com/token",
}
ROLE = CloudAccess("gar", HOST, machine_role=True)
PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
TOKEN = {"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"}


def stored(file: dict[str, Any]) -> CloudAccess:
    return CloudAccess("gar", HOST, password=Secret(json.dumps(file)))


def places(server: HTTPServer) -> Endpoints:
    return Endpoints(server.url_for("/token"), server.url_for("").rstrip("/"))


def test_a_key_signs_the_request_for_a_token(httpserver: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        assert request.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        proof = jwt.decode(request.form["assertion"], RSAKey.import_key(PUBLIC), algorithms=["RS256"])
        assert proof.header == {"alg": "RS256", "typ": "JWT", "kid": FILE["private_key_id"]}
        now = int(time.time())
        assert proof.claims["iss"] == FILE["client_email"]
        assert proof.claims["aud"] == "https://oauth2.googleapis.com/token"
        assert proof.claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        assert now - 60 <= proof.claims["iat"] <= now
        assert proof.claims["exp"] - proof.claims["iat"] == 3600
        return Response(json.dumps(TOKEN))

    httpserver.expect_oneshot_request("/token", method="POST").respond_with_handler(answer)
    found = google.token(stored(FILE), surroundings(), places(httpserver))
    httpserver.check()
    assert found.credentials == Credentials("oauth2accesstoken", Secret("ya29.token"))
    assert found.seconds == 3599
    assert "ya29" not in repr(found)


def test_the_metadata_server_gives_a_token(httpserver: HTTPServer) -> None:
    flavor = {"Metadata-Flavor": "Google"}
    httpserver.expect_oneshot_request(PATH, headers=flavor).respond_with_json(TOKEN, headers=flavor)
    found = google.token(ROLE, surroundings(), places(httpserver))
    httpserver.check()
    assert found.credentials.password.reveal() == "ya29.token"


def test_what_is_not_the_metadata_server_is_not_believed(httpserver: HTTPServer) -> None:
    httpserver.expect_request(PATH).respond_with_json(TOKEN)
    with pytest.raises(RemoteError, match="is not the metadata server"):
        google.token(ROLE, surroundings(), places(httpserver))


def test_a_machine_without_an_identity_says_so(httpserver: HTTPServer) -> None:
    with pytest.raises(RemoteError, match="no identity of Google Cloud") as raised:
        google.token(ROLE, surroundings(), Endpoints(metadata="http://127.0.0.1:1"))
    assert raised.value.field == "machine_role"
    httpserver.expect_request(PATH).respond_with_data("", 404)
    with pytest.raises(RemoteError, match="no identity of Google Cloud") as raised:
        google.token(ROLE, surroundings(), places(httpserver))
    assert "no service account is attached" in raised.value.hint


def test_the_metadata_server_is_at_its_address_only(httpserver: HTTPServer) -> None:
    """A name server that answers with another address gets no request."""
    with pytest.raises(RefusedError):
        google.token(ROLE, Surroundings(surroundings().settings, {}), places(httpserver))
    assert httpserver.log == []


@pytest.mark.parametrize("wrong", list(hostile()))
def test_hostile_answers_become_errors(wrong: str, httpserver: HTTPServer) -> None:
    answer = hostile()[wrong]
    httpserver.expect_request("/token").respond_with_response(answer)
    answer.headers["Metadata-Flavor"] = "Google"
    httpserver.expect_request(PATH).respond_with_response(answer)
    for access in (stored({**FILE, "private_key_id": SECRET}), ROLE):
        with pytest.raises(ScannerError) as raised:
            google.token(access, surroundings(), places(httpserver))
        assert SECRET not in f"{raised.value} {raised.value.hint}"
        assert "PRIVATE KEY" not in f"{raised.value}"
    assert all(request.path != "/elsewhere" for request, _ in httpserver.log)


@pytest.mark.parametrize(
    "change",
    [
        {"access_token": None},
        {"access_token": ["a"]},
        {"access_token": "a b"},
        {"access_token": "a\r\nX: y"},
        {"access_token": ""},
        {"expires_in": 0},
        {"expires_in": -5},
        {"expires_in": None},
        {"expires_in": [1]},
        {"expires_in": True},
    ],
)
def test_a_token_of_a_wrong_shape_is_an_error(change: dict[str, Any], httpserver: HTTPServer) -> None:
    httpserver.expect_request("/token").respond_with_json({**TOKEN, **change})
    with pytest.raises(RemoteError):
        google.token(stored(FILE), surroundings(), places(httpserver))


def test_a_refused_key_names_the_code(httpserver: HTTPServer) -> None:
    body = {"error": "invalid_grant", "error_description": f"Invalid JWT Signature. {SECRET}"}
    httpserver.expect_request("/token").respond_with_json(body, 400)
    with pytest.raises(RemoteError, match=r"refused the service account's key: invalid_grant$") as raised:
        google.token(stored(FILE), surroundings(), places(httpserver))
    assert "the registry's password" in raised.value.hint
