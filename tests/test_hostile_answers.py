"""Every part that asks another server, against servers that answer with an attack.

``test_connections`` proves from the source that all of them use the one bounded client. Here each one is attacked: it
must end with an error of ours or a decision by status alone, read a bounded part of the answer, and connect to nothing
that the answer names.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scanner.advisories import mirror
from scanner.commands._client import Client
from scanner.config import Limits, Secret, Settings
from scanner.engines._clair_client import ClairClient
from scanner.errors import ScannerError
from scanner.model.reference import Digest, Reference
from scanner.notify.base import Target
from scanner.registry.auth import CredentialStore
from scanner.registry.client import Access, RegistryClient
from scanner.registry.cloud import aws, azure, google
from scanner.registry.cloud.base import CloudAccess
from scanner.registry.probe import Way, probe
from tests.scanner.registry.cloud.fakes import surroundings
from web.oidc import Provider
from web.sender_keys import SenderKeys

MIB = 1 << 20
# What a client may take in before it ends the connection: its own limit, here at most 1 MiB, and the socket buffers.
MOST_BYTES = 24 * MIB
LIMITS = Limits(manifest=MIB, token=64 << 10, report=MIB)
Attack = Callable[["Hostile", socket.socket], None]


@dataclass
class Hostile:
    """A server whose answer to each request is one attack. ``trap``: the address that its answers lead to."""

    attack: Attack
    trap: str = ""
    tls: ssl.SSLContext | None = None
    requests: list[bytes] = field(default_factory=list)
    sent: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                if self.tls is not None:
                    connection = self.tls.wrap_socket(connection, server_side=True)
                head = b""
                while b"\r\n\r\n" not in head:
                    data = connection.recv(65536)
                    if not data or data[:1] == b"\x16":  # a probe's TLS handshake: this server speaks plain HTTP
                        return
                    head += data
                self.requests.append(head)
                self.attack(self, connection)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(10)
                while connection.recv(65536):  # a reset would take the answer away from the client
                    pass
            except OSError:
                return

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    def close(self) -> None:
        self.closing.set()
        self._listening.close()


@contextmanager
def hostile(attack: Attack, trap: str = "", tls: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    server = Hostile(attack, trap, tls)
    try:
        yield server
    finally:
        server.close()


def raw(head: str, body: bytes = b"", repeat: int = 1) -> Attack:
    def attack(server: Hostile, connection: socket.socket) -> None:
        start = "HTTP/1.1 " + head.replace("TRAP", server.trap).replace("HERE", server.host)
        server.send(connection, start.encode() + b"\r\n\r\n")
        for _ in range(repeat):
            server.send(connection, body)

    return attack


def many_headers(server: Hostile, connection: socket.socket) -> None:
    server.send(connection, b"HTTP/1.1 200 OK\r\n")
    for _ in range(4096):
        server.send(connection, b"X-Header: " + b"x" * 65526 + b"\r\n")


def endless_line(server: Hostile, connection: socket.socket) -> None:
    server.send(connection, b"HTTP/1.1 200 ")
    for _ in range(4096):
        server.send(connection, b"O" * 65536)


def drip(server: Hostile, connection: socket.socket) -> None:
    server.send(connection, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n{")
    while not server.closing.wait(1):
        server.send(connection, b" ")


BOMB = gzip.compress(b"[" + b"0," * (64 * MIB), 1)
SPACES = b" " * 65536
CHUNK = b"10000\r\n" + SPACES + b"\r\n"

ATTACKS: dict[str, Attack] = {
    "endless body": raw("200 OK\r\nContent-Type: application/json", SPACES, 4096),
    "endless chunks": raw("200 OK\r\nTransfer-Encoding: chunked", CHUNK, 4096),
    "endless error": raw("500 No", SPACES, 4096),
    "endless refusal": raw('401 No\r\nWWW-Authenticate: Basic realm="r"', SPACES, 4096),
    "endless extension of a chunk": raw("200 OK\r\nTransfer-Encoding: chunked", b"1;" + b"x" * 65534, 4096),
    "chunk of a negative size": raw("200 OK\r\nTransfer-Encoding: chunked", b"-1\r\n"),
    "chunk of 2^80 bytes": raw("200 OK\r\nTransfer-Encoding: chunked", b"f" * 20 + b"\r\n" + SPACES),
    "two lengths": raw("200 OK\r\nContent-Length: 2\r\nContent-Length: 900000", b"{}"),
    "body that breaks off": raw("200 OK\r\nContent-Length: 900000", b"{"),
    "gzip bomb": raw(f"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(BOMB)}", BOMB),
    "bomb in chunks": raw(
        "200 OK\r\nContent-Encoding: deflate\r\nTransfer-Encoding: chunked",
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(BOMB), BOMB),
    ),
    "deep JSON": raw("200 OK\r\nContent-Type: application/json\r\nContent-Length: 50000", b"[" * 50000),
    "many headers": many_headers,
    "endless status line": endless_line,
    "header that is no text": raw("200 OK\r\nX: \xff\x00\r\nContent-Length: 0"),
    "not HTTP": lambda server, connection: server.send(connection, b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "no answer": lambda server, connection: None,
    "redirect": raw("302 Found\r\nLocation: http://TRAP/latest/meta-data/\r\nContent-Length: 0"),
    "redirect that keeps the method": raw("307 Moved\r\nLocation: http://TRAP/\r\nContent-Length: 0"),
    "redirect to itself": raw("302 Found\r\nLocation: /again\r\nContent-Length: 0"),
    "redirect to a file": raw("308 Moved\r\nLocation: file:///etc/passwd\r\nContent-Length: 0"),
    "another page elsewhere": raw('200 OK\r\nLink: <http://TRAP/v2/>; rel="next"\r\nContent-Length: 2', b"{}"),
    "token service elsewhere": raw(
        '401 No\r\nWWW-Authenticate: Bearer realm="http://TRAP/token",service="s"\r\nContent-Length: 0'
    ),
    "token service with an attack": raw('401 No\r\nWWW-Authenticate: Bearer realm="http://HERE/t"', SPACES, 4096),
    "status without meaning": raw("299 Odd\r\nContent-Length: 2", b"{}"),
}

CLOUD = CloudAccess("any", "registry.example.com", "user", Secret("secret"), "tenant")
ROLE = CloudAccess("any", "registry.example.com", machine_role=True)
Ask = Callable[[Hostile, Path], object]


def registry(ask: Callable[[RegistryClient, Reference], object]) -> Ask:
    def run(server: Hostile, directory: Path) -> object:
        store = CredentialStore(Settings(), personal=False)
        access = Access(insecure=True)
        with RegistryClient(server.host, Settings(limits=LIMITS), store, access, sleep=lambda _: None) as client:
            return ask(client, Reference(server.host, "shop/app", "1"))

    return run


def advisories(server: Hostile, directory: Path) -> object:
    settings = Settings(insecure_registries=(server.host,), limits=LIMITS)
    return mirror.fetch(settings, f"http://{server.host}/epss.csv.gz", mirror.DATABASE, directory / "file")


def clair(server: Hostile, directory: Path) -> object:
    settings = Settings(clair_url=f"http://{server.host}", limits=LIMITS)
    with ClairClient(settings, 5, sleep=lambda _: None) as client:
        return client.index_state()


def clair_report(server: Hostile, directory: Path) -> object:
    settings = Settings(clair_url=f"http://{server.host}", limits=LIMITS)
    with ClairClient(settings, 5, sleep=lambda _: None) as client:
        return client.vulnerability_report(Digest.of(b"x"))


def amazon(server: Hostile, directory: Path) -> object:
    base = f"http://{server.host}"
    return aws.token(CLOUD, surroundings(), aws.Endpoints(base, base, "eu-west-1", (base,), base))


def amazon_machine(server: Hostile, directory: Path) -> object:
    base = f"http://{server.host}"
    return aws.token(ROLE, surroundings(), aws.Endpoints(base, base, "eu-west-1", (base,), base))


def azure_machine(server: Hostile, directory: Path) -> object:
    base = f"http://{server.host}"
    return azure.token(ROLE, surroundings(), azure.Endpoints(base, f"{base}/oauth2/exchange", base))


def entra(server: Hostile, directory: Path) -> object:
    base = f"http://{server.host}"
    return azure.token(CLOUD, surroundings(), azure.Endpoints(base, f"{base}/oauth2/exchange", base))


def google_machine(server: Hostile, directory: Path) -> object:
    return google.token(ROLE, surroundings(), google.Endpoints(f"http://{server.host}/t", f"http://{server.host}"))


def command_line(server: Hostile, directory: Path) -> object:
    return Client(f"http://{server.host}", Secret("token")).get("/api/v1/scans", {})


def identity_provider(server: Hostile, directory: Path) -> object:
    settings = Settings(oidc_issuer=f"http://{server.host}", oidc_client_id="client")
    return Provider(settings)._endpoint("token_endpoint")


def sender_keys(server: Hostile, directory: Path) -> object:
    found = SenderKeys.of(Settings())(f"http://{server.host}/keys", 60)
    assert len(found) <= 256 << 10
    return found


def channel(server: Hostile, directory: Path) -> object:
    found = Target(Settings(), {}).post(f"http://{server.host}/hook", body={})
    assert len(found.body) <= 64 << 10
    return found


def registry_probe(server: Hostile, directory: Path) -> object:
    store = CredentialStore(Settings(), personal=False)
    return probe(server.host, Settings(limits=LIMITS), store, Way(insecure=True), "shop/app", seconds=10)


CLIENTS: dict[str, Ask] = {
    "manifest": registry(lambda client, reference: client.manifest(reference)),
    "digest of a tag": registry(lambda client, reference: client.tag_digest(reference)),
    "blob": registry(lambda client, reference: client.blob(reference, Digest.of(b"x"), MIB)),
    "referrers": registry(lambda client, reference: client.referrers(reference, Digest.of(b"x"))),
    "catalog": registry(lambda client, reference: client.catalog(100)),
    "ping": registry(lambda client, reference: client.ping()),
    "push": registry(lambda client, reference: client.push_blob("shop/app", b"x")),
    "advisories": advisories,
    "Clair's state": clair,
    "Clair's report": clair_report,
    "Amazon": amazon,
    "Amazon's machine": amazon_machine,
    "Azure's machine": azure_machine,
    "Entra": entra,
    "Google's machine": google_machine,
    "command line": command_line,
    "identity provider": identity_provider,
    "sender keys": sender_keys,
    "channel": channel,
    "probe": registry_probe,
}
# By design: a registry may send blobs from another place, and name its token service; both are checked as any address
# (tests/scanner/test_outbound.py), and neither gets credentials that are not its own.
LED = {"redirect", "redirect that keeps the method", "token service elsewhere"}
LED_CLIENTS = {"manifest", "digest of a tag", "blob", "referrers", "catalog", "ping", "push", "probe"}
# What decides by the status, or whose answer is used by the caller only.
BY_STATUS = {"channel", "sender keys", "probe", "ping", "push", "advisories"}
# Harmless answers: their content is judged by who asked (a manifest's bytes are parsed later, and so on).
OPEN = {
    "deep JSON": {"manifest", "digest of a tag"},
    "another page elsewhere": {"manifest", "digest of a tag", "catalog", "Clair's report", "command line"},
}
MOST_REQUESTS = 24
# Answers that each client treats in its own way. The others end in the HTTP client that all share.
OFTEN = {
    "endless body",
    "endless refusal",
    "gzip bomb",
    "deep JSON",
    "many headers",
    "redirect",
    "redirect to itself",
    "token service elsewhere",
}


class Connections:
    """Every address that this process connects to. An audit hook stays for ever, so it is installed once."""

    def __init__(self) -> None:
        self.seen: set[str] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self.seen is not None and isinstance(arguments[1], tuple):
            self.seen.add(f"{arguments[1][0]}:{arguments[1][1]}")


@pytest.fixture(scope="module")
def connections() -> Connections:
    return Connections()


@pytest.mark.parametrize(
    "attack", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.long) for name in ATTACKS]
)
def test_no_answer_leads_a_client_astray(
    attack: str, connections: Connections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_MAX_FILE", MIB)
    with hostile(lambda server, connection: None) as trap:
        for name, ask in CLIENTS.items():
            with hostile(ATTACKS[attack], trap.host) as server:
                connections.seen = set()
                try:
                    ask(server, tmp_path)
                except ScannerError:  # any other kind of error is a find
                    pass
                else:
                    assert name in BY_STATUS | OPEN.get(attack, set()), f"{name} accepted the answer"
                seen, connections.seen = connections.seen, None
            assert server.requests, name
            assert server.sent < MOST_BYTES * max(1, len(server.requests)), (name, server.sent)
            assert len(server.requests) <= MOST_REQUESTS, name
            allowed = {server.host, *({trap.host} if attack in LED and name in LED_CLIENTS else ())}
            assert seen <= allowed, (name, seen)


@pytest.mark.long
def test_a_drip_ends_by_its_rate(tmp_path: Path) -> None:
    """One byte a second keeps every time-out of a read from passing; the rate in a window of 20 seconds ends it."""
    ended: dict[str, bool] = {}

    def run(name: str, server: Hostile, directory: Path) -> None:
        with suppress(ScannerError):
            CLIENTS[name](server, directory)
        ended[name] = True

    with ExitStack() as stack:
        threads = []
        for number, name in enumerate(CLIENTS):
            directory = tmp_path / str(number)
            directory.mkdir()
            server = stack.enter_context(hostile(drip))
            threads.append(threading.Thread(target=run, args=[name, server, directory], daemon=True))
            threads[-1].start()
        ends = time.monotonic() + 300  # a registry's document is asked for again after each failure, within 60 s
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))
        assert set(ended) == set(CLIENTS)
