"""Amazon ECR: keys and roles become a password, by the documented requests, and hostile answers become errors."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.config import Secret
from scanner.errors import RefusedError, RemoteError, ScannerError, UsageError
from scanner.registry.auth import Credentials
from scanner.registry.cloud import aws
from scanner.registry.cloud.aws import Endpoints
from scanner.registry.cloud.base import CloudAccess, Surroundings
from tests.scanner.registry.cloud.fakes import LOCAL, SECRET, hostile, surroundings

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
STORED = CloudAccess("ecr", HOST, "AKIDEXAMPLE00000", Secret(SECRET))
ROLE = CloudAccess("ecr", HOST, machine_role=True)
KEYS = {"AccessKeyId": "ASIAEXAMPLE00000", "SecretAccessKey": SECRET, "Token": "session+/=token"}


def places(server: HTTPServer) -> Endpoints:
    base = server.url_for("").rstrip("/")
    return Endpoints(base, base, "eu-west-1", (base,), base)


def password(seconds: float = 43200) -> dict[str, Any]:
    token = base64.b64encode(b"AWS:the-password").decode()
    one = {"authorizationToken": token, "expiresAt": time.time() + seconds, "proxyEndpoint": f"https://{HOST}"}
    return {"authorizationData": [one]}


def ends(seconds: float = 3600) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def expect_ecr(server: HTTPServer, access_key: str, session: str | None = None) -> None:
    def answer(request: Request) -> Response:
        assert request.headers["X-Amz-Target"] == "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
        assert request.headers["Content-Type"] == "application/x-amz-json-1.1"
        assert request.headers["Authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={access_key}/")
        assert "/eu-west-1/ecr/aws4_request, " in request.headers["Authorization"]
        assert request.headers.get("X-Amz-Security-Token") == session
        assert request.get_data() == b"{}"
        return Response(json.dumps(password()))

    server.expect_oneshot_request("/", method="POST").respond_with_handler(answer)


def test_an_access_key_becomes_a_password(httpserver: HTTPServer) -> None:
    expect_ecr(httpserver, "AKIDEXAMPLE00000")
    found = aws.token(STORED, surroundings(), places(httpserver))
    assert found.credentials == Credentials("AWS", Secret("the-password"))
    assert 43000 < found.seconds <= 43200
    assert "the-password" not in repr(found)
    assert SECRET not in repr(STORED)
    httpserver.check()


def test_the_role_of_a_service_account(httpserver: HTTPServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("web.identity.token\n")
    environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/scan"}

    def answer(request: Request) -> Response:
        assert request.form.to_dict() == {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": "arn:aws:iam::1:role/scan",
            "RoleSessionName": "dockwarden",
            "WebIdentityToken": "web.identity.token",
        }
        return Response(f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
            <AssumeRoleWithWebIdentityResult><Credentials><SessionToken>{KEYS["Token"]}</SessionToken>
            <SecretAccessKey>{SECRET}</SecretAccessKey><Expiration>{ends()}</Expiration>
            <AccessKeyId>{KEYS["AccessKeyId"]}</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>
            </AssumeRoleWithWebIdentityResponse>""")

    httpserver.expect_oneshot_request("/", method="POST").respond_with_handler(answer)
    keys = aws.machine_keys(surroundings(environment), places(httpserver))
    httpserver.check()
    assert (keys.access_key, keys.secret.reveal(), keys.session.reveal()) == tuple(KEYS.values())


ROLE_ARN = "arn:aws:iam::210987654321:role/registries/pull"
ASSUMING = replace(STORED, role_arn=ROLE_ARN, external_id="team:42")


def of_sts(action: str) -> str:
    return f"""<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><AssumedRoleUser>
        <Arn>arn:aws:sts::210987654321:assumed-role/pull/dockwarden</Arn></AssumedRoleUser><Credentials>
        <AccessKeyId>{KEYS["AccessKeyId"]}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>
        <SessionToken>{KEYS["Token"]}</SessionToken><Expiration>{ends(900)}</Expiration></Credentials>
        </{action}Result></{action}Response>"""


@pytest.mark.parametrize("external", ["team:42", ""])
def test_an_access_key_assumes_a_role_and_the_role_gets_the_password(httpserver: HTTPServer, external: str) -> None:
    def assume(request: Request) -> Response:
        assert request.form.to_dict() == {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "RoleArn": ROLE_ARN,
            "RoleSessionName": "dockwarden",
            **({"ExternalId": external} if external else {}),
        }
        assert "/eu-west-1/sts/aws4_request, " in request.headers["Authorization"]
        assert "Credential=AKIDEXAMPLE00000/" in request.headers["Authorization"]
        return Response(of_sts("AssumeRole"))

    httpserver.expect_oneshot_request("/", method="POST").respond_with_handler(assume)
    expect_ecr(httpserver, KEYS["AccessKeyId"], KEYS["Token"])
    found = aws.token(replace(ASSUMING, external_id=external), surroundings(), places(httpserver))
    httpserver.check()
    assert found.credentials.password.reveal() == "the-password"
    assert found.seconds <= 900, "the password may end with the role's keys"


def test_the_role_of_a_machine_assumes_another_one(httpserver: HTTPServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("web.identity.token")
    environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/scan"}
    actions = []

    def assume(request: Request) -> Response:
        actions.append(request.form["Action"])
        assert (request.headers.get("X-Amz-Security-Token") == KEYS["Token"]) is (len(actions) == 2)
        return Response(of_sts(actions[-1]))

    httpserver.expect_request("/", method="POST").respond_with_handler(assume)
    keys = aws.keys_of(replace(ROLE, role_arn=ROLE_ARN), surroundings(environment), places(httpserver))
    assert actions == ["AssumeRoleWithWebIdentity", "AssumeRole"]
    assert keys.session.reveal() == KEYS["Token"]


@pytest.mark.parametrize("wrong", list(hostile()))
def test_a_role_that_is_not_given_becomes_an_error(httpserver: HTTPServer, wrong: str) -> None:
    httpserver.expect_request("/").respond_with_response(hostile()[wrong])
    with pytest.raises(ScannerError) as raised:
        aws.token(ASSUMING, surroundings(), places(httpserver))
    assert SECRET not in f"{raised.value}{raised.value.hint}"


def test_a_role_that_trusts_nobody_says_what_to_check(httpserver: HTTPServer) -> None:
    body = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized</Message></Error></ErrorResponse>"
    httpserver.expect_request("/").respond_with_data(body, 403)
    with pytest.raises(RemoteError, match="refused the request to assume the role: AccessDenied") as raised:
        aws.token(ASSUMING, surroundings(), places(httpserver))
    assert "trust policy" in raised.value.hint
    assert "external ID" in raised.value.hint


def test_a_refused_web_identity_names_the_code_only(httpserver: HTTPServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    environment = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/scan"}
    body = f"<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>{SECRET}</Message></Error></ErrorResponse>"
    httpserver.expect_request("/").respond_with_data(body, 400)
    with pytest.raises(RemoteError, match=r"AWS STS refused the web identity token.*: InvalidIdentityToken$") as raised:
        aws.machine_keys(surroundings(environment), places(httpserver))
    assert raised.value.reason == "registry_auth_refused"
    assert not raised.value.retryable


def test_the_role_of_a_container(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_oneshot_request("/v2/credentials/1").respond_with_json({**KEYS, "Expiration": ends()})
    keys = aws.machine_keys(
        surroundings({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"}), places(httpserver)
    )
    assert keys.access_key == KEYS["AccessKeyId"]
    # EKS Pod Identity: a whole address, and the pod's token from a file.
    (tmp_path / "token").write_text("pod-token")
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": httpserver.url_for("/v1/credentials"),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
    }
    httpserver.expect_oneshot_request("/v1/credentials", headers={"Authorization": "pod-token"}).respond_with_json(
        {**KEYS, "Expiration": ends()}
    )
    assert aws.machine_keys(surroundings(environment), places(httpserver)).session.reveal() == KEYS["Token"]
    httpserver.check()


@pytest.mark.parametrize("uri", ["@evil.example/", "evil", "://"])
def test_a_relative_address_is_a_path(uri: str, httpserver: HTTPServer) -> None:
    with pytest.raises(UsageError, match="must begin with /"):
        aws.machine_keys(surroundings({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": uri}), places(httpserver))


def test_a_whole_address_leads_to_this_machine_only(httpserver: HTTPServer) -> None:
    environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://192.0.2.7/credentials"}
    with pytest.raises(RefusedError, match=re.escape("192.0.2.7")):
        aws.machine_keys(surroundings(environment), places(httpserver))


def instance(server: HTTPServer) -> None:
    seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    session = {"X-aws-ec2-metadata-token": "imds-session=="}
    path = "/latest/meta-data/iam/security-credentials/"
    server.expect_request("/latest/api/token", method="PUT", headers=seconds).respond_with_data("imds-session==")
    server.expect_request(path, headers=session).respond_with_data("scan-role")
    server.expect_request(f"{path}scan-role", headers=session).respond_with_json(
        {"Code": "Success", "Type": "AWS-HMAC", **KEYS, "Expiration": ends()}
    )


def test_the_role_of_an_instance_becomes_a_password(httpserver: HTTPServer) -> None:
    instance(httpserver)
    expect_ecr(httpserver, KEYS["AccessKeyId"], KEYS["Token"])
    found = aws.token(ROLE, surroundings(), places(httpserver))
    assert found.credentials.password.reveal() == "the-password"
    assert found.seconds <= 3600, "not longer than the role's keys"
    httpserver.check()


def test_the_second_address_of_the_metadata_service_is_asked(httpserver: HTTPServer) -> None:
    instance(httpserver)
    both = replace(places(httpserver), instance=("http://127.0.0.1:1", *places(httpserver).instance))
    assert aws.machine_keys(surroundings(), both).access_key == KEYS["AccessKeyId"]


def test_a_machine_without_a_role_says_so(httpserver: HTTPServer) -> None:
    with pytest.raises(RemoteError, match="no identity of AWS") as raised:
        aws.machine_keys(surroundings(), replace(places(httpserver), instance=("http://127.0.0.1:1",)))
    assert raised.value.field == "machine_role"
    httpserver.expect_request("/latest/api/token").respond_with_data("session")
    httpserver.expect_request("/latest/meta-data/iam/security-credentials/").respond_with_data("", 404)
    with pytest.raises(RemoteError, match="no identity of AWS"):
        aws.machine_keys(surroundings(), places(httpserver))


@pytest.mark.parametrize("name", ["../../user-data", "role\nX-Evil: 1", "", "<html>", "r" * 200])
def test_the_name_of_a_role_is_no_path(name: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/latest/api/token").respond_with_data("session")
    httpserver.expect_request("/latest/meta-data/iam/security-credentials/").respond_with_data(name)
    with pytest.raises(RemoteError, match="named no role"):
        aws.machine_keys(surroundings(), places(httpserver))


def test_metadata_is_not_asked_for_stored_keys(httpserver: HTTPServer, tmp_path: Path) -> None:
    """Only the choice "machine role" leads there, whatever the environment says."""
    expect_ecr(httpserver, "AKIDEXAMPLE00000")
    environment = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"}
    aws.token(STORED, surroundings(environment), places(httpserver))
    assert [request.path for request, _ in httpserver.log] == ["/"]


@pytest.mark.parametrize("wrong", list(hostile()))
def test_hostile_answers_become_errors(wrong: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_response(hostile()[wrong])
    httpserver.expect_request("/v2/credentials/1").respond_with_response(hostile()[wrong])
    with pytest.raises(ScannerError) as raised:
        aws.token(STORED, surroundings(), places(httpserver))
    assert SECRET not in f"{raised.value} {raised.value.hint} {raised.value!r}"
    with pytest.raises(ScannerError) as raised:
        aws.machine_keys(
            surroundings({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"}), places(httpserver)
        )
    assert SECRET not in f"{raised.value} {raised.value.hint}"
    assert all(request.path != "/elsewhere" for request, _ in httpserver.log)


@pytest.mark.parametrize(
    "data",
    [
        {"authorizationData": []},
        {"authorizationData": "AWS"},
        {"authorizationData": [7]},
        {"authorizationData": [{"authorizationToken": 5, "expiresAt": 9e9}]},
        {"authorizationData": [{"authorizationToken": "not base64!", "expiresAt": 9e9}]},
        {"authorizationData": [{"authorizationToken": base64.b64encode(b"nocolon").decode(), "expiresAt": 9e9}]},
        {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS:a\r\nX: y").decode(), "expiresAt": 9e9}]},
        {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS:\xff").decode(), "expiresAt": 9e9}]},
        {**password(), "authorizationData": [{**password()["authorizationData"][0], "expiresAt": "soon"}]},
        {**password(), "authorizationData": [{**password()["authorizationData"][0], "expiresAt": True}]},
        password(-1),
    ],
)
def test_a_password_of_a_wrong_shape_is_an_error(data: dict[str, Any], httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_json(data)
    with pytest.raises(RemoteError):
        aws.token(STORED, surroundings(), places(httpserver))


def test_a_password_ends_within_twelve_hours(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_json(password(10**9))
    assert aws.token(STORED, surroundings(), places(httpserver)).seconds == 43200


def test_a_refused_key_names_the_field(httpserver: HTTPServer) -> None:
    body = {"__type": "com.amazon.coral#UnrecognizedClientException", "message": SECRET}
    httpserver.expect_request("/").respond_with_json(body, 400)
    with pytest.raises(RemoteError, match=r"refused the access key: UnrecognizedClientException$") as raised:
        aws.token(STORED, surroundings(), places(httpserver))
    assert "user name (access key ID)" in raised.value.hint
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("host", "ecr", "sts"),
    [
        (HOST, "https://api.ecr.eu-west-1.amazonaws.com", "https://sts.eu-west-1.amazonaws.com"),
        (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
            "https://api.ecr.cn-north-1.amazonaws.com.cn",
            "https://sts.cn-north-1.amazonaws.com.cn",
        ),
        (
            "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            "https://ecr-fips.us-gov-west-1.amazonaws.com",
            "https://sts.us-gov-west-1.amazonaws.com",
        ),
        (
            "123456789012.dkr-ecr.us-east-1.on.aws",
            "https://ecr.us-east-1.api.aws",
            "https://sts.us-east-1.amazonaws.com",
        ),
    ],
)
def test_the_addresses_follow_from_the_host(host: str, ecr: str, sts: str) -> None:
    assert (Endpoints.of(host).ecr, Endpoints.of(host).sts) == (ecr, sts)


@pytest.mark.parametrize("host", ["public.ecr.aws", f"{HOST}.evil.example", f"evil-{HOST}", f"{HOST}:8443", "x" * 300])
def test_no_other_host_is_asked(host: str) -> None:
    with pytest.raises(UsageError, match="not a registry of Amazon ECR"):
        Endpoints.of(host)


def test_the_real_surroundings_reach_no_loopback_address(httpserver: HTTPServer) -> None:
    """A machine's identity comes from the clouds' addresses; a name that leads elsewhere is refused."""
    real = Surroundings(surroundings().settings, {})
    assert not real.machine_addresses & LOCAL
    with pytest.raises(RefusedError):
        aws.machine_keys(real, places(httpserver))
    assert httpserver.log == []
