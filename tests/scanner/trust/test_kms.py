"""Keys of receipts in key management services: doubles of their documented requests, which sign with keys of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pytest_httpserver import HTTPServer
from werkzeug import Response

from scanner.errors import RemoteError, ScannerError, UsageError
from scanner.registry.cloud import google
from scanner.registry.cloud.base import error_code
from scanner.trust import _receipts as signing
from scanner.trust._kms import services
from scanner.trust._kms.aws import AwsKey
from scanner.trust._kms.azure import AzureKey
from scanner.trust._kms.base import KeyService, KmsKey
from scanner.trust._kms.google import GoogleKey
from scanner.trust._kms.vault import VaultKey
from scanner.trust._pki import load_public_key
from tests.scanner.registry.cloud.fakes import SECRET, hostile, surroundings
from tests.scanner.trust.key_services import ARN, GCP, VERSION, Fake

AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE00000", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-west-1"}
AZURE = {
    "AZURE_TENANT_ID": "11111111-2222-3333-4444-555555555555",
    "AZURE_CLIENT_ID": "66666666-7777-8888-9999-000000000000",
    "AZURE_CLIENT_SECRET": SECRET,
}


@pytest.fixture
def fake(httpserver: HTTPServer) -> Iterator[Fake]:
    yield Fake.on(httpserver)
    httpserver.check_assertions()


def on_aws(fake: Fake, reference: str = f"awskms:///{ARN}", **changed: str) -> KeyService:
    return AwsKey(reference, surroundings(AWS | changed), fake.base)


def on_google(fake: Fake, reference: str = f"gcpkms://{GCP}/versions/1", **changed: str) -> KeyService:
    # The metadata server says who it is by a header, which the double has not; a federation needs more. So: a key file.
    places = google.Endpoints(token=f"{fake.base}/v1/token")
    return GoogleKey(reference, surroundings(changed), fake.base, places)


def on_azure(fake: Fake, reference: str = "azurekms://shop/receipts", **changed: str) -> KeyService:
    return AzureKey(reference, surroundings(AZURE | changed), fake.base, fake.base)


def on_vault(fake: Fake, reference: str = "hashivault://receipts", **changed: str) -> KeyService:
    return VaultKey(reference, surroundings({"VAULT_ADDR": fake.base, "VAULT_TOKEN": SECRET} | changed))


Open = Callable[..., KeyService]
EVERY = {
    "awskms": (on_aws, f"awskms:///{ARN}"),
    "gcpkms": (on_google, f"gcpkms://{GCP}/versions/1"),
    "azurekms": (on_azure, f"azurekms://shop.vault.azure.net/receipts/{VERSION}"),
    "hashivault": (on_vault, "hashivault://receipts/versions/1"),
}


@pytest.fixture(scope="module")
def service_account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cryptography.hazmat.primitives.asymmetric import rsa

    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = {
        "type": "service_account",
        "client_email": "signer@shop.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": pem.decode(),
    }
    path = tmp_path_factory.mktemp("google") / "key.json"
    path.write_text(json.dumps(key))
    return path


@pytest.fixture
def opened(fake: Fake, service_account: Path) -> Callable[..., KeyService]:
    def open_(name: str, *reference: str) -> KeyService:
        more = {"GOOGLE_APPLICATION_CREDENTIALS": str(service_account)} if name == "gcpkms" else {}
        return EVERY[name][0](fake, *reference, **more)

    return open_


@pytest.mark.parametrize("name", EVERY)
def test_a_key_signs_what_its_published_half_verifies(name: str, fake: Fake, opened: Open) -> None:
    key = opened(name).fetch()
    assert key == KmsKey(EVERY[name][1], fake.pem), "the address names one version, which cannot be exchanged"
    (payload,) = [b"{}"]
    (signature,) = services.sign_verified(opened(name, key.address), key, [signing.signed_bytes(payload)])
    (signed,) = signing.parse(signing.enveloped(payload, signature).encode())
    load_public_key(key.public_pem).verify(signed.signatures[0], signed.signed_bytes, ec.ECDSA(hashes.SHA256()))  # type: ignore[call-arg,arg-type,union-attr]


def test_an_own_endpoint_of_aws_may_end_with_a_slash(fake: Fake) -> None:
    around = surroundings(AWS | {"AWS_ENDPOINT_URL_KMS": f"{fake.base}/"})
    assert AwsKey(f"awskms:///{ARN}", around).fetch().public_pem == fake.pem


@pytest.mark.parametrize("name", EVERY)
def test_a_signature_of_another_key_is_not_used(name: str, fake: Fake, opened: Open) -> None:
    key = opened(name).fetch()
    fake.key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(RemoteError, match="does not belong to the published key") as error:
        services.sign_verified(opened(name, key.address), key, [b"said"])
    assert error.value.reason == "kms_refused"


DENIED = {
    "awskms": (400, {"__type": "AccessDeniedException", "Message": SECRET}, "kms:GetPublicKey"),
    "gcpkms": (403, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": SECRET}}, "viewPublicKey"),
    "azurekms": (403, {"error": {"code": "Forbidden", "innererror": {"code": "ForbiddenByRbac"}}}, "permission Get"),
    "hashivault": (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}, "capability read"),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_permission_is_named(name: str, fake: Fake, opened: Open) -> None:
    status, body, permission = DENIED[name]
    fake.answer = Response(json.dumps(body), status)
    with pytest.raises(RemoteError) as error:
        opened(name).fetch()
    assert (error.value.reason, error.value.retryable) == ("kms_refused", False)
    assert permission in error.value.hint
    assert SECRET not in f"{error.value}{error.value.hint}"


@pytest.mark.parametrize(
    ("name", "status", "body", "hint"),
    [
        ("awskms", 400, {"__type": "com.amazonaws.kms#NotFoundException"}, "no such key"),
        ("awskms", 400, {"__type": "DisabledException"}, "enable it"),
        ("gcpkms", 404, {"error": {"status": "NOT_FOUND"}}, "no such key version"),
        ("azurekms", 404, {"error": {"code": "KeyNotFound"}}, "no key of this name"),
        ("hashivault", 404, {"errors": []}, "no such key"),
    ],
)
def test_a_key_that_is_gone_is_no_missing_permission(
    name: str, status: int, body: object, hint: str, fake: Fake, opened: Open
) -> None:
    fake.answer = Response(json.dumps(body), status)
    with pytest.raises(RemoteError) as error:
        opened(name, EVERY[name][1]).sign([b"\0" * 32])
    assert hint in error.value.hint


STRANGE = {"of another kind": Response('{"PublicKey": "AAAA", "pem": 7, "data": []}'), "no members": Response("{}")}
HOSTILE = [("hashivault", kind) for kind in hostile()] + [(name, kind) for name in EVERY for kind in STRANGE]


@pytest.mark.parametrize(("name", "kind"), HOSTILE)
def test_a_hostile_answer_is_an_error_without_secrets(name: str, kind: str, fake: Fake, opened: Open) -> None:
    fake.answer = (hostile() | STRANGE)[kind]
    named = opened(name, EVERY[name][1])
    for work in (lambda: opened(name).fetch(), lambda: services.sign_verified(named, KmsKey("", fake.pem), [b"said"])):
        with pytest.raises((RemoteError, UsageError)) as error:
            work()
        assert SECRET not in f"{error.value}{error.value.hint}{error.value!r}"


def test_a_key_of_another_curve_is_refused(fake: Fake, opened: Open) -> None:
    fake.key = ec.generate_private_key(ec.SECP384R1())
    for name in ("awskms", "gcpkms", "hashivault"):
        with pytest.raises(UsageError) as error:
            opened(name).fetch()
        assert "P-256" in error.value.hint


@pytest.mark.parametrize(
    ("reference", "advice"),
    [
        ("awskms://", "awskms:///arn:aws:kms"),
        ("awskms:///alias/../../x?y", "awskms:///arn:aws:kms"),
        (f"gcpkms://{GCP}", "/versions/NUMBER"),
        ("azurekms://evil.example/receipts", "azurekms://VAULT/KEY"),
        ("azurekms://shop.vault.azure.net.evil.example/k", "azurekms://VAULT/KEY"),
        ("hashivault://../sys/seal", "hashivault://KEY"),
        ("hashivault://a/b", "hashivault://KEY"),
        ("k8s://a/b", "awskms://, gcpkms://"),
        ("/etc/passwd", "awskms://, gcpkms://"),
    ],
)
def test_a_wrong_reference_is_answered_with_the_right_form(reference: str, advice: str) -> None:
    with pytest.raises(UsageError) as error:
        services.service_of(reference, surroundings(AWS)).fetch()
    assert advice in error.value.hint


@pytest.mark.parametrize(
    ("reference", "environment", "advice"),
    [
        (f"awskms:///{ARN}", {}, "AWS_ACCESS_KEY_ID"),
        ("hashivault://receipts", {"VAULT_ADDR": "https://vault.example.com"}, "VAULT_TOKEN"),
        ("hashivault://receipts", {"VAULT_TOKEN": SECRET}, "https://vault"),
        ("hashivault://receipts", {"VAULT_ADDR": "http://vault.example.com", "VAULT_TOKEN": SECRET}, "https://"),
        ("azurekms://shop/k", {"AZURE_FEDERATED_TOKEN_FILE": "/none", "AZURE_TENANT_ID": "?"}, "AZURE_CLIENT_SECRET"),
        (f"gcpkms://{GCP}/versions/1", {"GOOGLE_APPLICATION_CREDENTIALS": "/none"}, "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_missing_credentials_are_named(reference: str, environment: dict[str, str], advice: str) -> None:
    around = surroundings(environment)
    service = AwsKey(reference, around, instance=()) if "aws" in reference else services.service_of(reference, around)
    with pytest.raises(ScannerError) as error:
        service.fetch()
    assert advice in f"{error.value}{error.value.hint}"
    assert SECRET not in f"{error.value}{error.value.hint}"


def test_error_codes_that_are_no_codes_are_not_quoted() -> None:
    from httpx import Headers

    from scanner.outbound import Answer

    for body in ({"error": {"status": SECRET}}, {"error": {"code": [SECRET]}}, {"error": {"innererror": {"code": 1}}}):
        assert error_code(Answer(403, Headers(), json.dumps(body).encode(), "")) == ""
