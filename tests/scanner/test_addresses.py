"""A URL that a person writes is refused where it is written, by the name of its option or setting."""

from __future__ import annotations

import pytest

from scanner.addresses import web_address
from scanner.config import load
from scanner.errors import UsageError

GOOD = [
    "https://dockwarden.example.com",
    "http://127.0.0.1:8080/",
    "https://[::1]:8443/path",
    "https://[fe80::1%25eth0]/",
    "http://compose_service:6060",
    "https://bücher.example/",
    "https://example.com./",
]
BAD = [
    "http://[::1",
    "http://x:99999",
    "http://x:0",
    "http://x:abc",
    "http://",
    "x",
    "",
    "http://a b/",
    "http://a\tb/",
    "http://-x/",
    "http://a..b/",
    "http://[zz]/",
    "http://x\\@y/",
    "ftp://x/",
    f"http://{'a' * 64}.example/",
]


@pytest.mark.parametrize("text", GOOD)
def test_an_address_that_can_be(text: str) -> None:
    assert web_address(text, "--server").hostname


@pytest.mark.parametrize("text", BAD)
def test_an_address_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match=r"--server: .* is not a URL with a valid host and port"):
        web_address(text, "--server")


@pytest.mark.parametrize("text", ["http://[::1", "http://x:99999"])
@pytest.mark.parametrize(
    "name",
    [
        "PUBLIC_URL",
        "CLAIR_URL",
        "CLAIR_LAYERS_URL",
        "OIDC_ISSUER",
        "KEV_SOURCE",
        "EPSS_SOURCE",
        "ADVISORIES_SOURCE",
        "ADVISORIES_JAVA_SOURCE",
        "BROKER_URL",
        "CLAIR_LAYERS_ADDRESS",
    ],
)
def test_a_setting_that_cannot_be_an_address(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"DOCKWARDEN_{name}: "):
        load({f"DOCKWARDEN_{name}": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BROKER_URL", "redis://:secret@one:6379/0;redis://two/0"),
        ("BROKER_URL", "redis+socket:///run/redis.sock"),
        ("CLAIR_LAYERS_ADDRESS", "[::]:8099"),
        ("CLAIR_LAYERS_ADDRESS", "0.0.0.0:8099"),
        ("ADVISORIES_SOURCE", "mirror.example.com:5000/aquasecurity/trivy-db:2"),
        ("PUBLIC_URL", "https://dockwarden.example.com/"),
        ("PORT", "0"),
    ],
)
def test_settings_that_are_addresses(name: str, text: str) -> None:
    assert load({f"DOCKWARDEN_{name}": text}) != load({})


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_does_not_exist(port: str) -> None:
    with pytest.raises(UsageError, match="DOCKWARDEN_PORT: "):
        load({"DOCKWARDEN_PORT": port})
