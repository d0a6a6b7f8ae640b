"""The guard: who may be connected to, in every spelling, after every redirect, and whatever a name server says the second time."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from scanner.config import Settings
from scanner.errors import RefusedError, RemoteError
from scanner.model.reference import Digest, Reference
from scanner.outbound import Reach, connector, http_client, resolve, split_address, unwrap, vet
from scanner.registry.auth import CredentialStore
from scanner.registry.client import Access, RegistryClient
from tests.scanner.registry.test_client import client, liar, reference
from tests.servers import Authority, Registry

STRICT = Settings(allow_private_addresses=False, allow_loopback_addresses=False)

# Seventeen spellings of places that no answer may lead us to, as they come in webhooks and redirects.
SPELLINGS = (
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[64:ff9b::a9fe:a9fe]",
    "169.254.169.254",
    "10.0.0.1",
    "[fd00:ec2::254]",
    "[::127.0.0.1]",
)


@pytest.mark.parametrize("host", SPELLINGS)
def test_the_seventeen_spellings(host: str) -> None:
    with pytest.raises(RefusedError) as refused:
        resolve(host, 443, STRICT)
    assert refused.value.reason == "address_refused"
    if split_address(f"http://{host}:9/"):  # else it is refused before anything is resolved
        with http_client(STRICT) as http, pytest.raises(RefusedError):
            http.get(f"http://{host}:9/")


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "ff02::1", "0.0.0.0",
        "::", "240.0.0.1", "255.255.255.255", "::ffff:169.254.169.254", "2002:a9fe:a9fe::1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe",
        "::169.254.169.254", "2001:0:4136:e378:8000:63bf:5601:5601",
    ],
)  # fmt: skip
def test_never_whatever_the_settings_allow(address: str) -> None:
    with pytest.raises(RefusedError):
        vet(ipaddress.ip_address(address), Settings(allow_private_addresses=True, allow_loopback_addresses=True))


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fd12::1", "fec0::1", "198.18.0.1"]
)
def test_private_ranges_by_setting(address: str) -> None:
    vet(ipaddress.ip_address(address), Settings(allow_private_addresses=True))
    with pytest.raises(RefusedError):
        vet(ipaddress.ip_address(address), STRICT)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "2002:5db8:d822::1"])
def test_public_addresses_are_reached_however_strict(address: str) -> None:
    vet(ipaddress.ip_address(address), STRICT)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"), ("2002:a00:1::5", "10.0.0.1"), ("64:ff9b::10.0.0.1", "10.0.0.1"), ("::10.0.0.1", "10.0.0.1"),
        ("::1", "::1"), ("::", "::"), ("2606:2800:220:1::1", "2606:2800:220:1::1"), ("10.0.0.1", "10.0.0.1"),
    ],
)  # fmt: skip
def test_where_the_packets_go(outer: str, inner: str) -> None:
    assert unwrap(ipaddress.ip_address(outer)) == ipaddress.ip_address(inner)


class Names:
    """A name server that changes its mind: another answer each time it is asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def test_a_name_that_is_rebound_is_asked_for_once() -> None:
    """The address that was vetted is the one that is connected to; a second answer would be another's (DNS rebinding)."""
    with liar(lambda h: h.give(body=b"here")) as there:
        port = int(there.host.rpartition(":")[2])
        names = Names(["127.0.0.1"], ["169.254.169.254"])
        with http_client(Settings(), own=["rebound.test"], look=names) as http:
            assert http.get(f"http://rebound.test:{port}/").content == b"here"
        assert names.asked == 1


def test_a_name_that_is_rebound_is_vetted_again_with_each_connection() -> None:
    def close(handler: object) -> None:
        handler.give(body=b"here", Connection="close")  # type: ignore[attr-defined]

    with liar(close) as there:
        port = int(there.host.rpartition(":")[2])
        with http_client(Settings(), own=["rebound.test"], look=Names(["127.0.0.1"], ["169.254.169.254"])) as http:
            http.get(f"http://rebound.test:{port}/")
            with pytest.raises(RefusedError):
                http.get(f"http://rebound.test:{port}/")


def test_one_bad_address_among_good_ones_refuses_the_name() -> None:
    with pytest.raises(RefusedError):
        resolve("mixed.test", 443, Settings(), look=Names(["93.184.216.34", "169.254.169.254"]))


def test_a_connector_keeps_to_the_address_that_it_was_given() -> None:
    with liar(lambda h: h.give(body=b"x")) as there:
        port = int(there.host.rpartition(":")[2])
        names = Names(["127.0.0.1"], ["169.254.169.254"])
        connect = connector("rebound.test", port, Reach(Settings(), frozenset(("rebound.test",))), look=names)
        for _ in range(3):
            with connect() as connection:
                assert connection.getpeername() == ("127.0.0.1", port)
        assert names.asked == 1


@pytest.mark.parametrize("port", [0, -1, 65536, 99999, 65536 + 22])
def test_a_port_that_is_none_is_not_another(port: int) -> None:
    with pytest.raises(RemoteError) as refused:
        resolve("127.0.0.1", port, Settings())
    assert "no port" in str(refused.value)


def test_nobody_there_and_no_such_name() -> None:
    with pytest.raises(RemoteError) as closed:
        connector("127.0.0.1", 1, Reach(Settings()))
    assert closed.value.reason == "registry_unreachable"
    with pytest.raises(RemoteError) as missing:
        resolve("nosuch.invalid", 443, Settings())
    assert missing.value.reason == "unknown_host"


def test_what_a_person_names_is_reached_wherever_it_is() -> None:
    with liar(lambda h: h.give(body=b"here")) as there:
        with http_client(STRICT, own=["127.0.0.1"], named=True) as http:
            assert http.get(f"http://{there.host}/").content == b"here"
            with pytest.raises(RefusedError):
                http.get("http://10.0.0.1/")
        with http_client(STRICT, own=["127.0.0.1"]) as http, pytest.raises(RefusedError):
            http.get(f"http://{there.host}/")


def test_an_answer_leads_to_this_machine_from_this_machine_only() -> None:
    away = Reach(Settings(), frozenset(("registry.example.com",)))
    with pytest.raises(RefusedError):
        away.vet("other.example.com", ipaddress.ip_address("127.0.0.1"))
    away.vet("other.example.com", ipaddress.ip_address("10.0.0.1"))
    away.vet("Registry.Example.Com.", ipaddress.ip_address("127.0.0.1"))
    Reach(Settings(), frozenset(("127.0.0.1",))).vet("localhost", ipaddress.ip_address("127.0.0.1"))


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://0251.0376.0251.0376/",
        "http://[::1/",
        "http://a\\@169.254.169.254/",
        "http://0.0.0.0:1/",
        "http://2852039166/",
    ],
)
def test_a_redirect_is_vetted_like_the_first_address(target: str) -> None:
    with liar(lambda h: h.give(302, Location=target)) as there, client(there.host) as asking:
        with pytest.raises((RefusedError, RemoteError)) as refused:
            asking.blob(reference(there.host), Digest.of(b"x"), 10)
        assert refused.value.reason in ("address_refused", "redirect_refused", "registry_unreachable")
        assert {path for path, _ in there.seen} == {f"/v2/shop/app/blobs/{Digest.of(b'x')}"}


def test_a_token_service_is_vetted_like_the_registry() -> None:
    realm = 'Bearer realm="http://169.254.169.254/token",service="s"'
    with (
        liar(lambda h: h.give(401, WWW_Authenticate=realm)) as there,
        client(there.host) as asking,
        pytest.raises(RefusedError) as refused,
    ):
        asking.manifest(reference(there.host))
    assert refused.value.reason == "address_refused"


def test_the_certificate_is_verified_for_the_name_not_the_address(registry: Registry, authority: Authority) -> None:
    """SNI and verification keep the URL's host although the connection goes to an address."""
    port = registry.port
    names = Names(["127.0.0.1"])
    with http_client(Settings(), ca_file=authority.file, look=names) as http:
        assert http.get(f"https://localhost:{port}/v2/").status_code == 401
        with pytest.raises(httpx.ConnectError) as refused:
            http.get(f"https://elsewhere.test:{port}/v2/")
    assert "certificate verify failed" in str(refused.value)


def test_a_client_that_may_reach_some_hosts_only() -> None:
    only = http_client(Settings(), allowed=lambda host, port: host == "registry.example.com")
    with only as http, pytest.raises(RefusedError) as refused:
        http.get("http://127.0.0.1:9/")
    assert refused.value.reason == "address_refused"


def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with liar(lambda h: h.give(body=b"direct")) as there, http_client(Settings()) as http:
        assert http.get(f"http://{there.host}/").content == b"direct"


def test_a_moment_ends_what_drips() -> None:
    """Each byte comes in time, all of them together do not."""
    import time

    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not done.wait(0.02):
            handler.wfile.write(b".")
            handler.wfile.flush()

    with liar(drip) as there:  # type: ignore[arg-type]
        with http_client(Settings(), ends=time.monotonic() + 0.4) as http, pytest.raises(httpx.ReadTimeout):
            http.get(f"http://{there.host}/")
        done.set()


def test_the_command_line_names_its_registry_and_the_service_does_not(tmp_path: Path) -> None:
    store = CredentialStore(STRICT, personal=False)
    with liar(lambda h: h.give(body=b'{"tags": ["1"]}')) as there:
        with RegistryClient(there.host, STRICT, store, Access(insecure=True, named=True)) as named:
            assert named.tags("shop/app") == ["1"]
        with (
            RegistryClient(there.host, STRICT, store, Access(insecure=True)) as configured,
            pytest.raises(RefusedError),
        ):
            configured.tags("shop/app")
    assert Reference.parse(f"{there.host}/shop/app").host == there.host


def test_the_next_page_of_a_list_is_an_address_too() -> None:
    for link in ("http://[::1/", "//169.254.169.254/x", "http://a\\@b/"):
        with liar(lambda h, to=link: h.give(body=b'{"tags": ["1"]}', Link=f"<{to}>; rel=next")) as there:  # type: ignore[misc]
            with client(there.host) as asking:
                assert asking.tags("shop/app") == ["1"]
            assert len(there.seen) == 1


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://r.example.com/x", "r.example.com"),
        ("/x", "base.example.com"),
        ("//other.example.com/x", "other.example.com"),
        ("ftp://r.example.com/x", None),
        ("http://[::1/", None),
        ("http://0177.0.0.1/", None),
        ("http://r.example.com:99999/", None),
        ("", "base.example.com"),
        ("javascript:alert(1)", None),
        ("file:///etc/passwd", None),
    ],
)
def test_addresses_that_answers_give(text: str, host: str | None) -> None:
    found = split_address(text, "https://base.example.com/a")
    assert (found.hostname if found else None) == host
