"""Where clients take their passwords."""

from __future__ import annotations

import pytest

from scanner.checks.registry.registry_token_realm import TokenRealm
from scanner.model.finding import Failed, NotApplicable, Passed
from scanner.model.posture import ChallengeFact
from tests.scanner.checks.registries import examine, messages


def realm(value: str, host: str = "registry.example.com", **parameters: object) -> object:
    return examine(TokenRealm(), parameters, host=host, challenges=(ChallengeFact("bearer", value, True),))


@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("registry.example.com:5000", "https://registry.example.com/token"),
        ("registry.example.com", "https://auth.example.com:5001/token"),
        ("registry.example.com", "https://example.com/jwt/auth"),
        ("docker.io", "https://auth.docker.io/token"),
        ("registry-1.docker.io", "https://auth.docker.io/token"),
        ("127.0.0.1:5000", "https://127.0.0.1:5001/token"),
    ],
)
def test_its_own(host: str, value: str) -> None:
    assert isinstance(realm(value, host), Passed)


@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("registry.example.com", "http://registry.example.com/token"),
        ("registry.example.com", "https://registry.example.com.evil.test/token"),
        ("registry.example.com", "https://evilexample.com/token"),
        ("registry.example.com", "https://registry.example.com@evil.test/token"),
        ("registry.example.com", "https://[::1/token"),
        ("registry.example.com", "token"),
        ("registry.example.com", ""),
        ("example.co.uk", "https://evil.co.uk/token"),
        ("registry", "https://other/token"),
        ("127.0.0.1", "https://10.0.0.1/token"),
    ],
)
def test_plain_or_a_strangers(host: str, value: str) -> None:
    assert isinstance(realm(value, host), Failed)


def test_both_at_once_are_two_findings() -> None:
    outcome = examine(TokenRealm(), challenges=(ChallengeFact("bearer", "http://evil.test/t", True),))
    assert messages(outcome) == [
        "clients send their passwords to http://evil.test/t in clear text",
        "clients of registry.example.com send their passwords to evil.test",
    ]


def test_a_policy_may_name_the_token_service_but_not_allow_it_plain() -> None:
    assert isinstance(realm("https://login.example.net/t", allow=("login.example.net",)), Passed)
    assert isinstance(realm("http://login.example.net/t", allow=("login.example.net",)), Failed)


def test_nobody_is_sent_anywhere() -> None:
    assert isinstance(examine(TokenRealm(), challenges=(ChallengeFact("basic", "x", True),)), NotApplicable)
