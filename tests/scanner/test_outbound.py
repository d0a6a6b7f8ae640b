"""The guard: who may be connected to, in every spelling, after every redirect, and whatever a name server says the
second time.
"""

from __future__ import annotations

import gzip
import ipaddress
import threading
import time
import zlib
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpcore
import httpx
import pytest

from scanner.config import Limits, Settings
from scanner.errors import RefusedError, RemoteError, ScannerError
from scanner.model.reference import Digest, Reference
from scanner.outbound import (
    AnswerTooLarge,
    Reach,
    _Exchange,
    connector,
    http_client,
    resolve,
    split_address,
    unwrap,
    vet,
)
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
            http.ask("GET", f"http://{host}:9/", limit=10)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "240.0.0.1",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "2002:a9fe:a9fe::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "::169.254.169.254",
        "2001:0:4136:e378:8000:63bf:5601:5601",
    ],
)
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
    assert unwrap(ipaddress.ip_address(address)).is_global, "and what it leads to is public, too"


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2002:a00:1::5", "10.0.0.1"),
        ("64:ff9b::10.0.0.1", "10.0.0.1"),
        ("::10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("::", "::"),
        ("2606:2800:220:1::1", "2606:2800:220:1::1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
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
    """The address that was vetted is the one that is connected to; a second answer would be another's (DNS
    rebinding).
    """
    with liar(lambda h: h.give(body=b"here")) as there:
        port = int(there.host.rpartition(":")[2])
        names = Names(["127.0.0.1"], ["169.254.169.254"])
        with http_client(Settings(), own=["rebound.test"], look=names) as http:
            assert http.ask("GET", f"http://rebound.test:{port}/", limit=10).body == b"here"
        assert names.asked == 1


def test_a_name_that_is_rebound_is_vetted_again_with_each_connection() -> None:
    def close(handler: object) -> None:
        handler.give(body=b"here", Connection="close")  # type: ignore[attr-defined]

    with liar(close) as there:
        port = int(there.host.rpartition(":")[2])
        with http_client(Settings(), own=["rebound.test"], look=Names(["127.0.0.1"], ["169.254.169.254"])) as http:
            http.ask("GET", f"http://rebound.test:{port}/", limit=1 << 20)
            with pytest.raises(RefusedError):
                http.ask("GET", f"http://rebound.test:{port}/", limit=1 << 20)


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
def test_an_invalid_port_is_refused_and_not_taken_modulo_65536(port: int) -> None:
    with pytest.raises(RemoteError) as refused:
        resolve("127.0.0.1", port, Settings())
    assert f"invalid port {port}" in str(refused.value)


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
            assert http.ask("GET", f"http://{there.host}/", limit=10).body == b"here"
            with pytest.raises(RefusedError):
                http.ask("GET", "http://10.0.0.1/", limit=1 << 20)
        with http_client(STRICT, own=["127.0.0.1"]) as http, pytest.raises(RefusedError):
            http.ask("GET", f"http://{there.host}/", limit=1 << 20)


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
        assert http.ask("GET", f"https://localhost:{port}/v2/", limit=1000).status == 401
        with pytest.raises(httpx.ConnectError) as refused:
            http.ask("GET", f"https://elsewhere.test:{port}/v2/", limit=1 << 20)
    assert "certificate verify failed" in str(refused.value)


def test_a_client_that_may_reach_some_hosts_only() -> None:
    only = http_client(Settings(), allowed=lambda host, port: host == "registry.example.com")
    with only as http, pytest.raises(RefusedError) as refused:
        http.ask("GET", "http://127.0.0.1:9/", limit=1 << 20)
    assert refused.value.reason == "address_refused"


def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with liar(lambda h: h.give(body=b"direct")) as there, http_client(Settings()) as http:
        assert http.ask("GET", f"http://{there.host}/", limit=10).body == b"direct"


def test_a_moment_ends_what_drips() -> None:
    """Each byte comes in time, all of them together do not."""
    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not done.wait(0.02):
            handler.wfile.write(b".")
            handler.wfile.flush()

    with liar(drip) as there:  # type: ignore[arg-type]
        with http_client(Settings(), ends=time.monotonic() + 0.4) as http, pytest.raises(httpx.ReadTimeout):
            http.ask("GET", f"http://{there.host}/", limit=1 << 20)
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
        ("https://auth.example.com:443/token", "auth.example.com"),
        ("http://auth.example.com:80/token", "auth.example.com"),
        ("https://auth.example.com:8443/token", "auth.example.com"),
    ],
)
def test_addresses_that_answers_give(text: str, host: str | None) -> None:
    found = split_address(text, "https://base.example.com/a")
    assert (found.hostname if found else None) == host


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1 << 14):  # 1 GiB: what is bounded stops the sender long before
        handler.wfile.write(b" " * (64 << 10))


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    with liar(endless) as there, http_client(Settings()) as http:  # type: ignore[arg-type]
        with pytest.raises(AnswerTooLarge):
            http.ask("GET", f"http://{there.host}/", limit=100_000)
        with http.open("GET", f"http://{there.host}/") as answer, pytest.raises(AnswerTooLarge):
            for _ in answer.chunks(100_000):
                pass


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_an_error_without_end_is_not_read_to_its_end(status: int) -> None:
    def failing(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("WWW-Authenticate", 'Basic realm="r"')
        handler.end_headers()
        for _ in range(1 << 14):
            handler.wfile.write(b" " * (64 << 10))

    with liar(failing) as there, client(there.host) as asking, pytest.raises(ScannerError):  # type: ignore[arg-type]
        asking.manifest(reference(there.host))


def test_a_token_service_without_end() -> None:
    """The token service is named by the registry's answer, so it is a stranger's."""

    def registry(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/token"):
            endless(handler)
        else:
            handler.give(401, WWW_Authenticate=f'Bearer realm="http://{handler.headers["Host"]}/token"')  # type: ignore[attr-defined]

    with liar(registry) as there, client(there.host) as asking, pytest.raises(RemoteError) as refused:  # type: ignore[arg-type]
        asking.manifest(reference(there.host))
    assert "token service" in str(refused.value)
    assert not refused.value.retryable


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x-gzip"])
def test_what_a_proxy_compressed_is_read_and_a_bomb_is_not(encoding: str) -> None:
    pack = zlib.compress if encoding == "deflate" else gzip.compress
    bodies = {"/small": pack(b"hello"), "/bomb": pack(b"\0" * (64 << 20))}
    with (
        liar(lambda h: h.give(body=bodies[h.path], Content_Encoding=encoding)) as there,
        http_client(Settings()) as http,
    ):
        assert http.ask("GET", f"http://{there.host}/small", limit=5).body == b"hello"
        with pytest.raises(AnswerTooLarge):
            http.ask("GET", f"http://{there.host}/bomb", limit=1 << 20)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"x"),
        ("gzip, gzip", b"x"),
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"hello")[:-3]),
        ("gzip", gzip.compress(b"a") + b"b"),
        ("deflate", b""),
    ],
)
def test_what_is_compressed_in_another_way_or_broken(encoding: str, body: bytes) -> None:
    with (
        liar(lambda h: h.give(body=body, Content_Encoding=encoding)) as there,
        http_client(Settings()) as http,
        pytest.raises(httpx.DecodingError),
    ):
        http.ask("GET", f"http://{there.host}/", limit=1000)


def test_headers_without_end() -> None:
    def many(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for n in range(100_000):
            handler.send_header(f"X-{n}", "x" * 100)
        handler.end_headers()

    with liar(many) as there, http_client(Settings()) as http, pytest.raises(httpx.HTTPError):  # type: ignore[arg-type]
        http.ask("GET", f"http://{there.host}/", limit=10)


def test_interim_answers_without_end() -> None:
    """ "100 Continue" may be repeated: at full speed no time-out and no rate would ever end it."""
    done = threading.Event()

    def interim(handler: BaseHTTPRequestHandler) -> None:
        while not done.is_set():
            handler.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

    with liar(interim) as there:  # type: ignore[arg-type]
        with http_client(Settings()) as http, pytest.raises(httpx.TimeoutException):
            http.ask("GET", f"http://{there.host}/", limit=10, seconds=0.5)
        done.set()


def exchange() -> _Exchange:
    return _Exchange(time.monotonic() + 1000)


def test_a_rate_is_judged_in_each_window_of_waiting() -> None:
    fast = exchange()
    for _ in range(100):
        fast.note(128 << 10, 1.0)
    slow = exchange()
    slow.note(1 << 30, 1.0)  # what came fast before does not pay for what drips now
    for _ in range(18):
        slow.note(1, 1.0)
    with pytest.raises(httpcore.ReadTimeout):
        slow.note(1, 2.0)


def test_a_server_may_think_before_its_first_byte() -> None:
    """An index of Clair or a long poll takes minutes before anything comes; then it comes at once."""
    thinking = exchange()
    thinking.note(0, 500.0)
    thinking.note(100, 500.0)
    thinking.note(64 << 10, 0.1)
    assert thinking.left(None, httpcore.ReadTimeout) < 20


def test_time_that_the_reader_itself_takes_is_not_the_servers() -> None:
    calm = exchange()
    for _ in range(10_000):
        calm.note(1, 0.0)
    assert calm.left(30.0, httpcore.ReadTimeout) == 20.0


def test_all_tries_together_have_an_end() -> None:
    settings = Settings(limits=Limits(document_seconds=3))
    waited: list[float] = []
    with (
        liar(lambda h: h.give(503, Retry_After="3600")) as there,
        RegistryClient(
            there.host, settings, CredentialStore(settings, personal=False), Access(insecure=True), waited.append
        ) as asking,
        pytest.raises(RemoteError),
    ):
        asking.manifest(reference(there.host))
    assert waited == []  # the wait that it asks for would end after the time that all tries have


def test_nothing_is_read_after_a_scan_ended() -> None:
    with liar(lambda h: h.give(body=b"{}")) as there, client(there.host, ends=time.monotonic() - 1) as asking:
        with pytest.raises(RemoteError) as late:
            asking.manifest(reference(there.host))
        assert late.value.reason == "registry_timeout"
        assert there.seen == []
