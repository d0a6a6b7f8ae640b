"""When a token ends, and which addresses of this machine's environment are believed."""

from __future__ import annotations

import ipaddress

import pytest

from scanner.config import Settings
from scanner.errors import RefusedError, RemoteError, UsageError
from scanner.outbound import Reach, http_client, resolve
from scanner.registry.cloud.base import MACHINE_ADDRESSES, Surroundings, lifetime, own_addresses


@pytest.mark.parametrize(
    ("value", "now", "seconds"),
    [
        (60, None, 60),
        (59.5, None, 59.5),
        ("3599", None, 3599),
        (10**30, None, 43200),
        (1_000_060, 1_000_000.0, 60),
        ("2026-03-01T12:00:00Z", 1772366340.0, 60),
        ("2026-03-01T13:00:00+01:00", 1772366340.0, 60),
    ],
)
def test_how_long_a_token_is_valid(value: object, now: float | None, seconds: float) -> None:
    assert lifetime(value, "it", now) == seconds


@pytest.mark.parametrize("value", [None, True, [], {}, "", "soon", "-5", "٣", "2026-03-01T12:00:00", "9" * 400, 0, -1])
def test_a_token_without_an_end_is_not_used(value: object) -> None:
    with pytest.raises(RemoteError):
        lifetime(value, "it", 1.0)


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://localhost:42356/msi/token", {"127.0.0.1", "::1"}),
        ("http://127.0.0.1:41000/", {"127.0.0.1"}),
        ("http://169.254.129.3:8081/msi/token", {"169.254.129.3"}),
        ("http://192.0.2.7/", set()),
        ("http://evil.example/", set()),
    ],
)
def test_only_addresses_of_this_machine_are_believed(url: str, addresses: set[str]) -> None:
    assert own_addresses(url, "IT") == frozenset(map(ipaddress.ip_address, addresses))


@pytest.mark.parametrize("url", ["nonsense", "http://[", "file:///etc/passwd", "http://a\n/", "http://:80/", "//x"])
def test_what_is_no_address_names_its_variable(url: str) -> None:
    with pytest.raises(UsageError, match="IDENTITY_ENDPOINT is not"):
        own_addresses(url, "IDENTITY_ENDPOINT")


@pytest.mark.parametrize("address", sorted(map(str, MACHINE_ADDRESSES)))
def test_metadata_addresses_are_reachable_by_choice_only(address: str) -> None:
    settings = Settings()
    reach = Reach(settings, only=MACHINE_ADDRESSES)
    assert resolve("metadata.google.internal", 80, settings, reach, lambda host, port: [address]) == [address]
    with pytest.raises(RefusedError):
        resolve("metadata.google.internal", 80, settings, None, lambda host, port: [address])


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.0.2.7", "169.254.1.1", "::ffff:169.254.169.254"])
def test_a_name_of_metadata_leads_nowhere_else(address: str) -> None:
    reach = Reach(Settings(), only=MACHINE_ADDRESSES)
    with pytest.raises(RefusedError):
        resolve("metadata.google.internal", 80, Settings(), reach, lambda host, port: ["169.254.169.254", address])


def test_a_client_asks_its_own_service_only() -> None:
    with http_client(Settings(), allowed=lambda host, port: False) as http, pytest.raises(RefusedError):
        http.ask("GET", "http://127.0.0.1:1/", limit=10)
    cloud = Surroundings(Settings(), {}).cloud("https://api.ecr.eu-west-1.amazonaws.com/")
    with cloud as http, pytest.raises(RefusedError, match="not a configured registry or server"):
        http.ask("GET", "https://127.0.0.1:1/", limit=10)


def test_a_token_file_that_is_missing_names_its_variable() -> None:
    around = Surroundings(Settings(), {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent/token"})
    with pytest.raises(UsageError, match="AWS_WEB_IDENTITY_TOKEN_FILE"):
        around.secret_file("AWS_WEB_IDENTITY_TOKEN_FILE")
