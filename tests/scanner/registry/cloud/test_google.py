"""Google's registries: a service account's key and the metadata server give an access token; hostile answers do not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import RSAKey
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.config import Secret
from scanner.errors import RefusedError, RemoteError, ScannerError, UsageError
from scanner.registry.auth import Credentials
from scanner.registry.cloud import google
from scanner.registry.cloud.base import CloudAccess, Surroundings
from scanner.registry.cloud.google import Endpoints
from scanner.registry.cloud.sigv4 import Keys, signed_headers
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


FEDERATED = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/aws/providers/k8s",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
}
ACCOUNT = "/v1/projects/-/serviceAccounts/scan@example.iam.gserviceaccount.com:generateAccessToken"
AWS_REQUEST = "urn:ietf:params:aws:token-type:aws4_request"
IAM = "https://iamcredentials.googleapis.com"


def federated(directory: Path, server: HTTPServer, **more: Any) -> tuple[Surroundings, Endpoints]:
    """This machine with the file of a workload identity pool, and a fake of Google's services."""
    (directory / "token").write_text(f"{SECRET}\n")
    config = {**FEDERATED, "credential_source": {"file": str(directory / "token")}, **more}
    (directory / "config.json").write_text(json.dumps(config))
    base = server.url_for("").rstrip("/")
    return (
        surroundings({"GOOGLE_APPLICATION_CREDENTIALS": str(directory / "config.json")}),
        Endpoints(metadata=base, sts=f"{base}/sts", iam=base),
    )


def exchange(server: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        assert request.form.to_dict() == {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": FEDERATED["audience"],
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token": SECRET,
            "subject_token_type": FEDERATED["subject_token_type"],
        }
        return Response(json.dumps({**TOKEN, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}))

    server.expect_oneshot_request("/sts", method="POST").respond_with_handler(answer)


def test_a_token_of_another_identity_provider_is_exchanged(httpserver: HTTPServer, tmp_path: Path) -> None:
    around, there = federated(tmp_path, httpserver)
    exchange(httpserver)
    found = google.token(ROLE, around, there)
    httpserver.check()
    assert (found.credentials.password.reveal(), found.seconds) == ("ya29.token", 3599)


def test_the_exchanged_token_acts_as_a_service_account(httpserver: HTTPServer, tmp_path: Path) -> None:
    around, there = federated(tmp_path, httpserver, service_account_impersonation_url=IAM + ACCOUNT)
    exchange(httpserver)

    def answer(request: Request) -> Response:
        assert request.headers["Authorization"] == "Bearer ya29.token"
        assert request.json == {"scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "3600s"}
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1800))
        return Response(json.dumps({"accessToken": "ya29.acting", "expireTime": ends}))

    httpserver.expect_oneshot_request(ACCOUNT, method="POST").respond_with_handler(answer)
    found = google.token(ROLE, around, there)
    httpserver.check()
    assert found.credentials.password.reveal() == "ya29.acting"
    assert 1700 < found.seconds <= 1800


def test_the_token_comes_from_an_address_of_this_machine(httpserver: HTTPServer, tmp_path: Path) -> None:
    source = {
        "url": httpserver.url_for("/identity"),
        "headers": {"Metadata": "True"},
        "format": {"type": "json", "subject_token_field_name": "access_token"},
    }
    around, there = federated(tmp_path, httpserver, credential_source=source)
    httpserver.expect_oneshot_request("/identity", headers={"Metadata": "True"}).respond_with_json(
        {"access_token": SECRET}
    )
    exchange(httpserver)
    assert google.token(ROLE, around, there).credentials.password.reveal() == "ya29.token"
    elsewhere = {**source, "url": "http://192.0.2.7/identity"}
    around, there = federated(tmp_path, httpserver, credential_source=elsewhere)
    with pytest.raises(RefusedError, match=r"192\.0\.2\.7"):
        google.token(ROLE, around, there)


# As `gcloud iam workload-identity-pools create-cred-config --aws --enable-imdsv2` writes it.
AWS_SOURCE = {
    "environment_id": "aws1",
    "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
    "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
    "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    "imdsv2_session_token_url": "http://169.254.169.254/latest/api/token",
}


@pytest.mark.parametrize("source", ["environment", "instance", "container"])
def test_a_machine_of_aws_proves_who_it_is_by_a_signed_request(
    httpserver: HTTPServer, tmp_path: Path, source: str
) -> None:
    """Signed again as AWS would, by what was sent alone."""
    around, there = federated(tmp_path, httpserver, credential_source=AWS_SOURCE, subject_token_type=AWS_REQUEST)
    there = replace(there, aws_instance=(there.iam,), aws_container=there.iam)
    keys = {"AccessKeyId": "ASIAEXAMPLE00000", "SecretAccessKey": SECRET, "Token": "session+/=token"}
    keys["Expiration"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    given = dict(around.environment)
    if source == "environment":
        given |= {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE00000"}
        given |= {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "session+/=token"}
    elif source == "container":
        given |= {"AWS_REGION": "eu-west-1", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"}
        httpserver.expect_request("/v2/credentials/1").respond_with_json(keys)
    else:
        session = {"X-aws-ec2-metadata-token": "imds-session"}
        meta = "/latest/meta-data"
        httpserver.expect_request("/latest/api/token", method="PUT").respond_with_data("imds-session")
        httpserver.expect_request(f"{meta}/placement/region", headers=session).respond_with_data("eu-west-1")
        httpserver.expect_request(f"{meta}/iam/security-credentials/", headers=session).respond_with_data("scan")
        httpserver.expect_request(f"{meta}/iam/security-credentials/scan", headers=session).respond_with_json(keys)

    def answer(request: Request) -> Response:
        assert request.form["subject_token_type"] == AWS_REQUEST
        sent = json.loads(unquote(request.form["subject_token"]))
        headers = {entry["key"]: entry["value"] for entry in sent["headers"]}
        url = "https://sts.eu-west-1.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
        assert (sent["url"], sent["method"]) == (url, "POST")
        assert headers["host"] == "sts.eu-west-1.amazonaws.com"
        assert headers["x-amz-security-token"] == "session+/=token"
        assert headers["x-goog-cloud-target-resource"] == FEDERATED["audience"]
        at = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        again = signed_headers(
            "POST",
            url,
            {"x-goog-cloud-target-resource": FEDERATED["audience"]},
            b"",
            Keys("ASIAEXAMPLE00000", Secret(SECRET), Secret("session+/=token")),
            "eu-west-1",
            "sts",
            at,
        )
        assert headers["Authorization"] == again["authorization"]
        assert SECRET not in request.form["subject_token"]
        return Response(json.dumps(TOKEN))

    httpserver.expect_oneshot_request("/sts", method="POST").respond_with_handler(answer)
    found = google.token(ROLE, replace(around, environment=given), there)
    httpserver.check()
    assert found.credentials.password.reveal() == "ya29.token"


def test_a_region_that_is_none_chooses_no_host(httpserver: HTTPServer, tmp_path: Path) -> None:
    around, there = federated(tmp_path, httpserver, credential_source=AWS_SOURCE)
    given = {**around.environment, "AWS_REGION": "eu-west-1.evil.example/"}
    with pytest.raises(RemoteError, match="is not one of AWS"):
        google.token(ROLE, replace(around, environment=given), there)
    assert httpserver.log == []


UNUSABLE: dict[str, dict[str, Any]] = {
    "type is not external_account": {"type": "authorized_user"},
    "token_url is not": {"token_url": "https://evil.example/v1/token"},
    "audience or subject_token_type": {"audience": 7},
    "neither a file nor a URL": {"credential_source": {"certificate": {}}},
    "no program is run because a file names it": {"credential_source": {"executable": {"command": "/bin/sh"}}},
    "environment_id is not aws1": {"credential_source": {"environment_id": "aws2"}},
    "regional_cred_verification_url is not": {
        "credential_source": {"environment_id": "aws1", "regional_cred_verification_url": "https://evil.example"}
    },
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_a_file_that_leads_elsewhere_is_refused_before_any_request(
    why: str, httpserver: HTTPServer, tmp_path: Path
) -> None:
    around, there = federated(tmp_path, httpserver, **UNUSABLE[why])
    with pytest.raises(UsageError, match=why) as refused:
        google.token(ROLE, around, there)
    assert refused.value.field == "machine_role"
    assert httpserver.log == []


@pytest.mark.parametrize("url", ["https://evil.example" + ACCOUNT, IAM + "/v1/../x", IAM + ACCOUNT + "?a", 7])
def test_an_account_elsewhere_gets_no_token(url: object, httpserver: HTTPServer, tmp_path: Path) -> None:
    around, there = federated(tmp_path, httpserver, service_account_impersonation_url=url)
    exchange(httpserver)
    with pytest.raises(UsageError, match="service_account_impersonation_url"):
        google.token(ROLE, around, there)


@pytest.mark.parametrize("wrong", list(hostile()))
def test_hostile_answers_to_an_exchange_become_errors(wrong: str, httpserver: HTTPServer, tmp_path: Path) -> None:
    around, there = federated(tmp_path, httpserver)
    httpserver.expect_request("/sts").respond_with_response(hostile()[wrong])
    with pytest.raises(ScannerError) as raised:
        google.token(ROLE, around, there)
    assert SECRET not in f"{raised.value}{raised.value.hint}"
