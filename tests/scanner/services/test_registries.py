"""Credentials of registries: each kind is complete, on a host of its cloud, and no secret is used for another kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import NotFoundError, UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.model.cloud_registry import EXAMPLES
from scanner.services import registries as use_cases
from scanner.store import audit, registries
from tests.scanner.model.test_service_account import FILE

KEY = Secret("a secret key for tests, long enough")
ECR, GAR, ACR = EXAMPLES["ecr"], EXAMPLES["gar"], EXAMPLES["acr"]
CLIENT = "66666666-7777-8888-9999-000000000000"
SECRET = Secret("s3cret-that-nobody-may-see")
JSON_KEY = Secret(json.dumps(FILE))
ROLE_ARN = "arn:aws:iam::210987654321:role/registries/pull"
AWS: dict[str, Any] = {"credentials": "ecr", "username": "AKIDEXAMPLE00000", "password": SECRET}
GOOGLE: dict[str, Any] = {"credentials": "gar", "password": JSON_KEY}
AZURE: dict[str, Any] = {
    "credentials": "acr",
    "username": CLIENT,
    "password": SECRET,
    "tenant": "example.onmicrosoft.com",
}


@pytest.mark.parametrize(
    ("host", "given"),
    [
        (ECR, AWS),
        (ECR, {"credentials": "ecr", "machine_role": True}),
        (ECR, {**AWS, "role_arn": ROLE_ARN, "external_id": "team:42"}),
        (ECR, {"credentials": "ecr", "machine_role": True, "role_arn": ROLE_ARN}),
        (GAR, GOOGLE),
        ("gcr.io", {"credentials": "gar", "machine_role": True}),
        (ACR, AZURE),
        (ACR, {"credentials": "acr", "machine_role": True}),
        (ACR, {"credentials": "acr", "machine_role": True, "username": CLIENT}),
        (ECR, {"username": "AWS", "password": SECRET}),  # a password of 12 hours, as docker login uses it
        ("ghcr.io", {"username": "octocat", "password": SECRET}),
    ],
)
def test_each_kind_of_credentials_is_stored(session: Connection, host: str, given: dict[str, Any]) -> None:
    made = use_cases.add(session, COMMAND_LINE, KEY, host, **given)
    expected = {"credentials": "static", "machine_role": False, "tenant": "", "username": "", **given}
    expected["has_password"] = bool(expected.pop("password", None))
    assert {name: getattr(made, name) for name in expected} == expected
    assert registries.password(session, made.id, KEY) == given.get("password")
    (entry,) = audit.list_entries(session).items
    assert SECRET.reveal() not in f"{entry}"
    assert "PRIVATE KEY" not in f"{entry} {made}"


@pytest.mark.parametrize(
    ("host", "given", "field"),
    [
        (ECR, {**AWS, "credentials": "aws"}, "credentials"),
        ("registry.example.com", AWS, "credentials"),
        ("public.ecr.aws", AWS, "credentials"),
        (f"{ECR}:8443", AWS, "credentials"),
        (ACR, AWS, "credentials"),
        (ECR, {**AWS, "insecure": True}, "insecure"),
        (ECR, {**AWS, "username": ""}, "username"),
        (ECR, {**AWS, "username": "akid lower"}, "username"),
        (ECR, {**AWS, "username": "AKIDEXAMPLE00000/x"}, "username"),
        (ECR, {**AWS, "password": None}, "password"),
        (ECR, {**AWS, "tenant": "x"}, "tenant"),
        (ECR, {**AWS, "machine_role": True}, "machine_role"),
        (ECR, {**AWS, "password": None, "machine_role": True}, "username"),
        (ECR, {**AWS, "role_arn": "arn:aws:iam::1:user/x"}, "role_arn"),
        (ECR, {**AWS, "role_arn": ROLE_ARN + "&Action=x"}, "role_arn"),
        (ECR, {**AWS, "role_arn": ROLE_ARN + "\n"}, "role_arn"),
        (ECR, {**AWS, "role_arn": ROLE_ARN, "external_id": "a b"}, "external_id"),
        (ECR, {**AWS, "external_id": "team"}, "external_id"),
        (ACR, {**AZURE, "role_arn": ROLE_ARN}, "role_arn"),
        (GAR, {**GOOGLE, "username": "_json_key"}, "username"),
        (GAR, {**GOOGLE, "password": SECRET}, "password"),
        (GAR, {**GOOGLE, "password": None}, "password"),
        (ACR, {**AZURE, "username": "name"}, "username"),
        (ACR, {**AZURE, "username": ""}, "username"),
        (ACR, {**AZURE, "tenant": ""}, "tenant"),
        (ACR, {**AZURE, "tenant": "a/../b"}, "tenant"),
        (ACR, {**AZURE, "password": None}, "password"),
        (ACR, {"credentials": "acr", "machine_role": True, "tenant": "example.com"}, "tenant"),
        ("registry.example.com", {"machine_role": True}, "machine_role"),
        ("registry.example.com", {"tenant": "example.com"}, "tenant"),
        ("ghcr.io", {"password": SECRET}, "username"),
    ],
)
def test_a_mistake_names_its_field(session: Connection, host: str, given: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError) as raised:
        use_cases.add(session, COMMAND_LINE, KEY, host, **given)
    assert raised.value.field == field
    assert SECRET.reveal() not in f"{raised.value} {raised.value.hint}"
    assert registries.list_registries(session) == ()


def test_a_secret_is_not_used_for_another_kind(session: Connection) -> None:
    """A registry's password must not be sent to a cloud, nor a cloud's secret to the registry."""
    made = use_cases.add(session, COMMAND_LINE, KEY, ECR, username="AWS", password=SECRET)
    with pytest.raises(UsageError, match="secret access key is missing"):
        use_cases.change(session, COMMAND_LINE, KEY, made.id, credentials="ecr", username="AKIDEXAMPLE00000")
    use_cases.change(session, COMMAND_LINE, KEY, made.id, **AWS)
    changed = use_cases.change(session, COMMAND_LINE, KEY, made.id, credentials="static", username="AWS")
    assert (changed.credentials, changed.username, changed.has_password) == ("static", "AWS", False)


def test_the_identity_of_the_machine_replaces_a_secret(session: Connection) -> None:
    made = use_cases.add(session, COMMAND_LINE, KEY, ACR, **AZURE)
    changed = use_cases.change(session, COMMAND_LINE, KEY, made.id, machine_role=True)
    assert (changed.machine_role, changed.has_password, changed.username, changed.tenant) == (True, False, "", "")
    with pytest.raises(UsageError, match="username"):
        use_cases.change(session, COMMAND_LINE, KEY, made.id, machine_role=False)
    again = {"username": CLIENT, "tenant": "example.com"}
    with pytest.raises(UsageError, match="client secret is missing"):
        use_cases.change(session, COMMAND_LINE, KEY, made.id, machine_role=False, **again)


def test_a_stored_password_is_not_sent_to_a_new_token_service(session: Connection) -> None:
    """Otherwise a password that nobody can read could be had by naming one's own host."""
    host = "registry.example.com"
    made = use_cases.add(session, COMMAND_LINE, KEY, host, username="scan", password=SECRET)
    with pytest.raises(UsageError, match="enter the password again") as raised:
        use_cases.change(session, COMMAND_LINE, KEY, made.id, token_service="evil.example.com")
    assert raised.value.field == "token_service"
    for wrong in ("https://gitlab.example.com", "gitlab.example.com/jwt", "a@b.example.com", "x y"):
        with pytest.raises(UsageError) as raised:
            use_cases.change(session, COMMAND_LINE, KEY, made.id, token_service=wrong, password=SECRET)
        assert raised.value.field == "token_service"
    given = {"token_service": "gitlab.example.com", "password": Secret("new")}
    assert use_cases.change(session, COMMAND_LINE, KEY, made.id, **given).token_service == "gitlab.example.com"
    kept = use_cases.change(session, COMMAND_LINE, KEY, made.id, token_service="gitlab.example.com", username="robot")
    assert (kept.username, kept.has_password) == ("robot", True)
    assert use_cases.change(session, COMMAND_LINE, KEY, made.id, token_service="").has_password
    with pytest.raises(UsageError, match="its own token service"):
        use_cases.add(session, COMMAND_LINE, KEY, ECR, **AWS, token_service="gitlab.example.com")


def test_other_changes_keep_the_credentials(session: Connection) -> None:
    made = use_cases.add(session, COMMAND_LINE, KEY, ECR, **AWS)
    changed = use_cases.change(session, COMMAND_LINE, KEY, made.id, aliases=["a.example"], credentials="ecr")
    assert registries.password(session, made.id, KEY) == SECRET
    assert changed.username == "AKIDEXAMPLE00000"
    with pytest.raises(UsageError, match="uses TLS only"):
        use_cases.change(session, COMMAND_LINE, KEY, made.id, insecure=True)
    with pytest.raises(UsageError, match="secret access key is missing"):
        use_cases.change(session, COMMAND_LINE, KEY, made.id, password=Secret(""))
    anonymous = use_cases.change(
        session, COMMAND_LINE, KEY, made.id, credentials="static", username="", password=Secret("")
    )
    assert (anonymous.username, anonymous.has_password) == ("", False)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"harbor": "sometimes"}, "harbor"),
        ({"username": "robot", "password": Secret("x" * 20_000)}, "password"),
        ({"ca_pem": "no certificate"}, "ca_pem"),
        ({"aliases": ["not a host"]}, "aliases"),
    ],
)
def test_a_change_that_cannot_be_names_its_field(session: Connection, given: dict[str, Any], field: str) -> None:
    made = use_cases.add(session, COMMAND_LINE, KEY, "registry.example.com")
    with pytest.raises(UsageError) as raised:
        use_cases.change(session, COMMAND_LINE, KEY, made.id, **given)
    assert raised.value.field == field
    assert registries.get(session, made.id) == made


def test_a_registry_is_found_by_its_host(session: Connection) -> None:
    made = use_cases.add(session, COMMAND_LINE, KEY, "registry.example.com")
    assert use_cases.by_host(session, "registry.example.com") == made
    with pytest.raises(NotFoundError) as raised:
        use_cases.by_host(session, "other.example.com")
    assert raised.value.field == "host"
