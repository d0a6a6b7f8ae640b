"""The web under callers who send nothing, or slowly, or read slowly; and while its processes are exchanged or
killed.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import resource
import signal
import socket
import ssl
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner import config
from scanner.model.actor import COMMAND_LINE
from scanner.model.audit import Action
from scanner.store import audit, deliveries, registries
from scanner.store.schema import delivery, delivery_scan, idempotency, scan
from tests.chaos.web import ROOT, Prepared, WebServer, closed, head, status_of
from tests.servers import Authority, listening

JSON = "Content-Type: application/json"
WRONG = "Authorization: Bearer dw_00000000_wrong"
SILENT = {
    "nothing at all": b"",
    "half a head": b"POST /api/v1/gate HTTP/1.1\r\nHost: localhost\r\nX-A: ",
    "no body on the gate": head("POST", "/api/v1/gate", JSON, "Content-Length: 100"),
    "no body on the gate, wrong token": head("POST", "/api/v1/gate", JSON, WRONG, "Content-Length: 100"),
    "no body on a webhook": head("POST", "/webhooks/distribution", JSON, "Content-Length: 100"),
    "no body on sign-in": head(
        "POST", "/sign-in", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 100"
    ),
    "no body on health": head("GET", "/healthz", "Content-Length: 100"),
    "no chunk": head("POST", "/sign-in", "Transfer-Encoding: chunked"),
    "half a chunk": head("POST", "/webhooks/clair", "Transfer-Encoding: chunked") + b"ff\r\nabc",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared.make(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def web(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """One server for all callers who misbehave: it must be as good as new after each."""
    server = WebServer(prepared, tmp_path_factory.mktemp("web") / "home")
    yield server
    server.stop()


@pytest.fixture
def own(prepared: Prepared, tmp_path: Path) -> Iterator[WebServer]:
    """A server of the test's own: its processes are exchanged and killed."""
    server = WebServer(prepared, tmp_path / "home")
    yield server
    server.stop()


def test_silent_connections_stop_nothing_and_are_closed(web: WebServer) -> None:
    """Two hundred of each kind: every other caller is answered as before, and none of them stays."""
    silent = {kind: [web.send(data) for _ in range(200)] for kind, data in SILENT.items()}
    for _ in range(20):
        assert web.alive()
        assert web.gate()
    for kind, connections in silent.items():
        ends = time.monotonic() + 40
        while not all(closed(connection) for connection in connections):
            assert time.monotonic() < ends, f"still open: {kind}"
            time.sleep(0.5)


@pytest.mark.long
def test_half_open_handshakes_stop_nothing_and_are_closed(
    prepared: Prepared, authority: Authority, tmp_path: Path
) -> None:
    """Two thousand from one address: of half of them the server waits for the first byte, of the others for the last of
    the handshake.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8192 if hard == resource.RLIM_INFINITY else hard), hard))
    certificate, key = authority.issue("flooded")
    environment = {"DOCKWARDEN_TLS_CERTIFICATE": str(certificate), "DOCKWARDEN_TLS_KEY": str(key)}
    trusted = ssl.create_default_context(cafile=str(authority.file))
    server = WebServer(prepared, tmp_path / "home", environment, trusted)
    try:
        hello = _client_hello(trusted)
        for _ in range(2):
            half_open = [server.send(hello if number % 2 else b"") for number in range(2000)]
            for _ in range(20):
                assert server.alive(20)
                assert server.gate(20)
            ends = time.monotonic() + 60
            while not all(closed(connection) for connection in half_open):
                assert time.monotonic() < ends, "still open"
                time.sleep(0.5)
            for connection in half_open:
                connection.close()
    finally:
        server.stop()


def _client_hello(context: ssl.SSLContext) -> bytes:
    """The first message of a handshake."""
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="127.0.0.1").do_handshake()
    return sent.read()


def test_drip_fed_bodies_stop_nothing_and_are_refused(web: WebServer) -> None:
    """A byte now and then, on each way in that needs no token, and with a wrong one; honest callers notice nothing."""
    paths = ("/webhooks/distribution", "/webhooks/clair", "/sign-in")
    heads = [head("POST", path, "Content-Length: 60000") for path in paths]
    heads.append(head("POST", "/api/v1/gate", JSON, WRONG, "Content-Length: 60000"))
    heads.append(head("POST", "/api/v1/scans", JSON, f"Authorization: Bearer {web.token}", "Content-Length: 60000"))
    drips = [web.send(one) for one in heads for _ in range(40)]
    answered: set[int] = set()
    ends = time.monotonic() + 45
    while len(answered) < len(drips):
        assert time.monotonic() < ends, f"{len(drips) - len(answered)} are still read"
        for number, connection in enumerate(drips):
            if number not in answered:
                try:
                    connection.sendall(b"a")
                except OSError:
                    answered.add(number)
                else:
                    if closed(connection):
                        answered.add(number)
        assert web.alive()
        assert web.gate()
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("POST", "/api/v1/gate", JSON, WRONG, "Content-Length: 500000"), 401),
        (head("POST", "/api/v1/scans", JSON, WRONG, "Transfer-Encoding: chunked"), 401),
        (head("POST", "/webhooks/distribution", "Content-Length: 900000"), 401),
        (head("POST", "/webhooks/clair", "Content-Length: 50000", "Expect: 100-continue"), 401),
        (head("POST", "/sign-in", "Content-Length: 70000"), 413),
        (head("POST", "/nowhere", "Content-Length: 900000"), 404),
        (head("GET", "/healthz", "X-A: " + "a" * 70_000), 431),
        (head("GET", "/healthz", *["A: b"] * 200), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400),
    ],
    ids=["gate", "chunked", "webhook", "continue", "form", "nowhere", "long head", "many fields", "two lengths"],
)
def test_a_stranger_is_answered_before_the_body(web: WebServer, request_head: bytes, status: int) -> None:
    connection = web.send(request_head)
    assert status_of(connection) == status
    connection.close()


def test_a_late_or_long_body_of_an_honest_caller_is_read(web: WebServer) -> None:
    """In pieces with pauses, chunked, and after ``100 Continue``: as long as it goes on, it is taken."""
    question = json.dumps({"image": web.image}).encode()
    fields = ("Host: localhost", JSON, f"Authorization: Bearer {web.token}")
    slow = web.send(head("POST", "/api/v1/gate", *fields[1:], f"Content-Length: {len(question)}"))
    for start in range(0, len(question), 30):
        time.sleep(0.4)
        slow.sendall(question[start : start + 30])
    assert status_of(slow) == 200
    chunked = web.send(head("POST", "/api/v1/gate", *fields[1:], "Transfer-Encoding: chunked"))
    for piece in (question[:20], question[20:]):
        time.sleep(1.5)
        chunked.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
    chunked.sendall(b"0\r\n\r\n")
    assert status_of(chunked) == 200
    asking = web.send(
        head("POST", "/api/v1/gate", *fields[1:], f"Content-Length: {len(question)}", "Expect: 100-continue")
    )
    assert status_of(asking) == 100
    asking.sendall(question)
    assert status_of(asking) == 200
    long = json.dumps({"image": web.image, "workload": "x" * 300_000}).encode()
    assert web.ask("POST", "/api/v1/gate", long, {"Content-Type": "application/json"})[0] in (200, 400, 422)


ENDLESS = {
    "trailers": (b"1\r\na\r\n0\r\n", b"a: b\r\n" * 5000),
    "one trailer": (b"1\r\na\r\n0\r\nX-A: ", b"a" * 65_536),
    "an extension of a chunk": (b"5;", b"a" * 65_536),
    "extensions of chunks": (b"", (b"1;" + b"x" * 4000 + b"\r\na\r\n") * 16),
}


@pytest.mark.parametrize("kind", list(ENDLESS))
def test_a_body_with_endless_framing_is_cut_off(web: WebServer, kind: str) -> None:
    """Trailers were kept as headers: 1.4 GB in 12 seconds from one connection, and the event loop stood still."""
    first, piece = ENDLESS[kind]
    connection = web.send(head("POST", "/sign-in", "Transfer-Encoding: chunked") + first)
    with pytest.raises(OSError):
        connection.sendall(piece * 1000)  # 40 MB at least
    assert web.alive()
    assert web.gate()


def test_trailers_are_no_headers(web: WebServer) -> None:
    """A proxy replaces a client's headers, and may pass its trailers on."""
    chunked = head("POST", "/api/v1/gate", JSON, "Transfer-Encoding: chunked")
    question = json.dumps({"image": web.image}).encode()
    body = b"%x\r\n%s\r\n0\r\n" % (len(question), question)
    connection = web.send(chunked + body + f"Authorization: Bearer {web.token}\r\n\r\n".encode())
    assert status_of(connection) == 401


def _long_audit_log(web: WebServer) -> None:
    with web.database.session() as session:
        for number in range(4000):
            audit.record(session, COMMAND_LINE, Action.SCAN_CANCEL, "x", detail={"text": "a" * 2000, "number": number})


def test_slow_readers_of_long_answers_hold_nothing(web: WebServer) -> None:
    """More readers of a stream than there are threads for, none of whom reads: others are answered, and readers get
    a clear 503.
    """
    _long_audit_log(web)
    readers = []
    for _ in range(40):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", web.port))
        reader.sendall(head("GET", "/api/v1/audit-log/export", f"Authorization: Bearer {web.token}"))
        readers.append(reader)
    time.sleep(1)
    for _ in range(20):
        assert web.alive()
        assert web.gate()
        assert web.ask("GET", "/api/v1/scans")[0] == 200
    status, _, headers = web.ask("GET", "/api/v1/audit-log/export")
    assert status == 503
    assert headers["Retry-After"]
    # They are given up, and their threads are free.
    web.until(lambda: web.ask("GET", "/api/v1/audit-log/export")[0] == 200)
    for reader in readers:
        reader.close()


def test_readers_of_pages_leave_the_gate_its_room(web: WebServer) -> None:
    """Fifty at once: the gate goes on, and what is too much is told so at once."""
    web.gate()
    ends, seen = time.monotonic() + 6, []

    def read() -> None:
        while time.monotonic() < ends:
            status, _, headers = web.ask("GET", "/overview", timeout=60)
            seen.append(status)
            assert status in (200, 303, 503)
            assert status != 503 or headers["Retry-After"]

    readers = [threading.Thread(target=read) for _ in range(50)]
    for reader in readers:
        reader.start()
    times = []
    while time.monotonic() < ends:
        began = time.monotonic()
        assert web.gate()
        times.append(time.monotonic() - began)
    for reader in readers:
        reader.join()
    assert statistics.median(times) < 0.5, f"{len(times)} gate calls beside {len(seen)} pages"


def test_server_sent_events_arrive_and_end_with_the_process(own: WebServer) -> None:
    _, body, _ = own.ask(
        "POST", "/api/v1/scans", b'{"image": "registry.example.com/a:1"}', {"Content-Type": "application/json"}
    )
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=30)
    connection.request(
        "GET", f"/api/v1/scans/{json.loads(body)['id']}/events", headers={"Authorization": f"Bearer {own.token}"}
    )
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.readline() == b"retry: 2000\n"
    own.process.send_signal(signal.SIGHUP)
    assert b"event: scan" in answer.read()  # to the end of the stream: no broken chunk
    assert own.alive()


class Load:
    """Callers who keep their connections, and callers who open a new one each time. ``failed`` is what went wrong."""

    def __init__(self, web: WebServer, total: int, kept: int = 4, fresh: int = 4) -> None:
        self._web, self._left, self._lock = web, total, threading.Lock()
        self.failed: list[str] = []
        self.answered = 0
        callers = [(True,)] * kept + [(False,)] * fresh
        self._threads = [threading.Thread(target=self._call, args=arguments) for arguments in callers]
        for thread in self._threads:
            thread.start()

    def _call(self, keep: bool) -> None:
        question = json.dumps({"image": self._web.image}).encode()
        fields = {"Authorization": f"Bearer {self._web.token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self._web.port, timeout=30)
        while True:
            with self._lock:
                if self._left <= 0:
                    break
                self._left -= 1
            try:
                connection.request("POST", "/api/v1/gate", question, fields)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise OSError(f"status {answer.status}")
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{type(error).__name__}: {error} ({'kept' if keep else 'new'})")
                connection.close()
            if not keep:
                connection.close()
        connection.close()

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("total", [3000, pytest.param(20_000, marks=pytest.mark.long)])
def test_renewing_the_web_process_fails_no_request(own: WebServer, total: int) -> None:
    """SIGHUP again and again under load: no connection is refused, reset or left without its answer."""
    load, processes = Load(own, total), set(own.children())
    while load.running:
        before = set(own.children())
        own.process.send_signal(signal.SIGHUP)
        own.until(lambda before=before: not load.running or bool(set(own.children()) - before))  # type: ignore[misc]
        processes |= set(own.children())
        time.sleep(1)
    load.join()
    assert load.failed == []
    assert len(processes) > 1, "the load was over before a new process had begun"


def test_a_killed_web_process_refuses_no_connection(own: WebServer) -> None:
    """The socket is the supervisor's: what connects while no web process lives waits for the next one."""
    (process,) = own.children()
    os.kill(process, signal.SIGKILL)
    assert own.gate(timeout=30)


class Deliveries:
    """Registries that deliver, each one delivery after the other, until it is answered with 202."""

    SENDERS, EVENTS = 12, 3

    def __init__(self, web: WebServer) -> None:
        with web.database.session() as session:
            registry = registries.list_registries(session)[0]
            key = config.secret_key(config.Settings(home=web.home))
            self._secret = deliveries.create_hook(session, "chaos", "distribution", registry.id, key)[1].reveal()
        self._web, self._host, self._stopped = web, registry.host, threading.Event()
        self.accepted: dict[str, list[str]] = {}
        self.broken = 0
        self.wrong: list[int] = []
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(self.SENDERS)]
        for thread in self._threads:
            thread.start()

    def _send(self, sender: int) -> None:
        number, connection = 0, http.client.HTTPConnection("127.0.0.1", self._web.port, timeout=60)
        while not self._stopped.is_set():
            try:
                connection.request("POST", "/webhooks/distribution", self._body(f"{sender}-{number}"), self._fields)
                answer = connection.getresponse()
                document = json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                self.broken += 1  # not answered: the registry repeats it
                connection.close()
                continue
            if answer.status != 202:
                self.wrong.append(answer.status)
                return
            self.accepted[document["delivery"]] = document["scans"]
            number += 1
        connection.close()

    @property
    def _fields(self) -> dict[str, str]:
        kind = "application/vnd.docker.distribution.events.v2+json"
        return {"Authorization": f"Bearer {self._secret}", "Content-Type": kind}

    def _body(self, name: str) -> bytes:
        kind = "application/vnd.oci.image.manifest.v1+json"
        events = [
            {
                "id": f"{name}-{part}",
                "action": "push",
                "target": {
                    "mediaType": kind,
                    "repository": f"shop/part{part}",
                    "digest": "sha256:" + hashlib.sha256(f"{name}-{part}".encode()).hexdigest(),
                },
                "request": {"host": self._host},
            }
            for part in range(self.EVENTS)
        ]
        return json.dumps({"events": events}).encode()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.long)])
def test_a_kill_during_intake_loses_no_accepted_delivery_and_stores_no_half(own: WebServer, kills: int) -> None:
    senders = Deliveries(own)
    for _ in range(kills):
        before, broken = len(senders.accepted), senders.broken
        enough = before + 100
        own.until(lambda enough=enough: bool(senders.wrong) or len(senders.accepted) > enough)  # type: ignore[misc]
        (process,) = own.children()
        os.kill(process, signal.SIGKILL)
        own.until(lambda broken=broken: bool(senders.wrong) or senders.broken > broken)  # type: ignore[misc]
    last = len(senders.accepted)
    own.until(lambda: bool(senders.wrong) or len(senders.accepted) > last + 100)
    senders.stop()
    assert senders.wrong == []
    with own.database.read() as session:
        links = session.execute(sa.select(delivery_scan.c.delivery_id, delivery_scan.c.scan_id)).all()
        recorded = set(session.execute(sa.select(delivery.c.id)).scalars())
        states = {row.id: row.state for row in session.execute(sa.select(scan.c.id, scan.c.state))}
        keys = session.execute(sa.select(sa.func.count()).select_from(idempotency)).scalar_one()
    stored: dict[str, set[str]] = {}
    for delivery_id, scan_id in links:
        stored.setdefault(delivery_id, set()).add(scan_id)
    lost = [one for one, asked in senders.accepted.items() if stored.get(one) != set(asked)]
    assert lost == []
    # Also of those that were stored, but whose answer the kill took away. They were repeated, and not stored twice.
    assert recorded == set(stored) == set(senders.accepted)
    assert {len(scans) for scans in stored.values()} == {senders.EVENTS}
    assert len(links) == keys == len({scan_id for _, scan_id in links})
    assert {states.get(scan_id) for _, scan_id in links} == {"queued"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT])
def test_no_process_outlives_its_supervisor(own: WebServer, number: int) -> None:
    """Whatever kills it, with a request in flight and idle connections, the port is free for the next server."""
    children = own.children()
    idle = own.send(head("GET", "/healthz"))
    status_of(idle)
    own.process.send_signal(number)
    own.process.wait(30)
    own.until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert not listening(own.port)
    own.start()
    assert own.gate()


def test_a_second_server_on_a_taken_port_is_refused(own: WebServer) -> None:
    second = own.run("serve", "--web-only", "--port", str(own.port))
    assert second.returncode == 2
    assert "listening on" not in second.stderr
    assert len([line for line in second.stderr.splitlines() if line.startswith("dockwarden:")]) == 1
    assert f"127.0.0.1:{own.port}" in second.stderr
    assert own.alive()


@pytest.mark.parametrize(
    "arguments", [("--port", "99999"), ("--port", "-1"), ("--host", "192.0.2.1"), ("--host", "no such host")]
)
def test_an_address_that_cannot_be_is_usage(own: WebServer, arguments: tuple[str, str]) -> None:
    refused = own.run("serve", "--web-only", *arguments)
    assert refused.returncode == 2
    assert "listening on" not in refused.stderr


def test_a_service_managers_socket_is_taken(own: WebServer) -> None:
    """With systemd's socket activation the socket outlives the whole tree: connections wait in it until the next one
    answers.
    """
    with socket.create_server(("127.0.0.1", 0)) as passed:
        os.set_inheritable(passed.fileno(), True)
        script = (
            f"exec 3<&{passed.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec {sys.executable} -m scanner.cli "
            "serve --web-only"
        )
        environment = {**os.environ, "DOCKWARDEN_HOME": str(own.home)}
        with own.log.open("ab") as out:
            started = subprocess.Popen(
                ["/bin/bash", "-c", script],
                cwd=ROOT,
                env=environment,
                pass_fds=[passed.fileno()],
                stdout=out,
                stderr=out,
            )
        try:
            connection = http.client.HTTPConnection("127.0.0.1", passed.getsockname()[1], timeout=30)
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
        finally:
            started.terminate()
            started.wait(30)


def test_state_is_its_owners_alone(own: WebServer) -> None:
    """Whatever a server and commands make under their home: directories 0700, files 0600, also what was left open
    before.
    """
    own.stop()
    own.home.chmod(0o755)
    (own.home / "dockwarden.db").chmod(0o644)
    own.start()
    assert own.ask("GET", "/api/v1/scans")[0] == 200  # the log of SQLite's writes is there while it runs
    own.run("token", "list")
    opened = {path: stat.S_IMODE(path.lstat().st_mode) for path in (own.home, *own.home.rglob("*"))}
    assert own.home / "dockwarden.db-wal" in opened
    assert {str(path): oct(mode) for path, mode in opened.items() if mode & 0o077} == {}
