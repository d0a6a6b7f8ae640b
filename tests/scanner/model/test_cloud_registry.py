"""Which hosts are a cloud's registries: whole host names, because a token is sent there."""

from __future__ import annotations

import pytest

from scanner.model import cloud_registry
from scanner.model.cloud_registry import ACR, ECR, EXAMPLES, GAR, HOSTS, KINDS, NAMES, STATIC, is_host, is_tenant


@pytest.mark.parametrize(
    ("kind", "host"),
    [
        (ECR, "123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
        (ECR, "123456789012.dkr.ecr.us-gov-east-1.amazonaws.com"),
        (ECR, "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com"),
        (ECR, "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"),
        (ECR, "123456789012.dkr-ecr.ap-southeast-2.on.aws"),
        (GAR, "europe-docker.pkg.dev"),
        (GAR, "us-central1-docker.pkg.dev"),
        (GAR, "gcr.io"),
        (GAR, "eu.gcr.io"),
        (ACR, "example.azurecr.io"),
        (ACR, "example-h4sh.azurecr.io"),
        (ACR, "example.azurecr.us"),
        (STATIC, "anything:5000"),
    ],
)
def test_registries_of_a_cloud(kind: str, host: str) -> None:
    assert is_host(kind, host)
    assert [other for other in KINDS if is_host(other, host)] in ([STATIC], [STATIC, kind], [kind, STATIC])


@pytest.mark.parametrize("kind", [ECR, GAR, ACR])
def test_other_hosts_are_none(kind: str) -> None:
    example = EXAMPLES[kind]
    wrong = (f"{example}.evil.example", f"{example}:443", f"{example}.", f"evil.example/{example}", f"x@{example}")
    for host in (*wrong, example.upper(), "", "localhost", "169.254.169.254", f"{example}\n"):
        assert not is_host(kind, host), host
    assert not is_host(ECR, "public.ecr.aws")
    assert not is_host(GAR, "evilgcr.io")


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("11111111-2222-3333-4444-555555555555", True),
        ("example.onmicrosoft.com", True),
        ("", False),
        ("../x", False),
        ("a/b", False),
        ("a?b", False),
        ("a#b", False),
        ("-", False),
        ("a" * 300, False),
    ],
)
def test_a_tenant_is_no_path(text: str, valid: bool) -> None:
    assert is_tenant(text) is valid


def test_every_kind_is_described() -> None:
    assert set(NAMES) == set(KINDS)
    assert set(HOSTS) == set(EXAMPLES) == set(KINDS) - {STATIC}
    assert all(is_host(kind, example) for kind, example in EXAMPLES.items())
    assert cloud_registry.STATIC == "static"
