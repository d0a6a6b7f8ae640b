"""The server as ``dockwarden serve --web-only`` runs it, with an image that is decided, and callers who misbehave."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scanner import config
from scanner.store import accounts, registries
from scanner.store.session import Database
from tests.servers import free_port, listening

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


@dataclass(frozen=True)
class Prepared:
    """State that every server of a run begins with a copy of: migrating takes longer than most tests."""

    home: Path
    token: str
    image: str

    @classmethod
    def make(cls, home: Path) -> Prepared:
        from benchmarks.gate import decided
        from tests.scanner.store import factories

        settings = config.Settings(home=home)
        database = Database.of(settings)
        database.upgrade()
        key = config.secret_key(settings)
        with database.session() as session:
            scopes = ["read", "scan", "gate", "audit", "manage"]
            token = accounts.create_token(session, "all", scopes, key)[1].reveal()
            image = decided(session, factories.report("shop/app", packages=[factories.package(1)]))
            registries.add(session, "registry.example.com", key)
        database.engine.dispose()
        return cls(home, token, image)


class WebServer:
    """``dockwarden serve --web-only`` in a directory of its own. ``trusted``: whom its callers trust, if it has TLS."""

    def __init__(
        self,
        prepared: Prepared,
        home: Path,
        environment: Mapping[str, str] | None = None,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        shutil.copytree(prepared.home, home)
        self._trusted = trusted
        self.home, self.port, self.token, self.image = home, free_port(), prepared.token, prepared.image
        self.database = Database.of(config.Settings(home=home))
        self.log = home / "server.log"
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKWARDEN_")}
        self._environment |= {"DOCKWARDEN_HOME": str(home), "DOCKWARDEN_RATE_LIMITS": "false", **(environment or {})}
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "scanner.cli", "serve", "--web-only", "--port", str(self.port)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=out, stderr=out)
        self.until(lambda: listening(self.port) and self.alive(10))
        return self.process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another ``dockwarden`` with the same state."""
        command = [sys.executable, "-m", "scanner.cli", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )

    def until(self, reached: Callable[[], bool]) -> None:
        """Raises AssertionError with the server's log when it takes far too long."""
        ends = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < ends, self.log.read_text(errors="replace")[-3000:]
            time.sleep(0.1)

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in found.read_text().split()]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 20,
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self._trusted)
            if self._trusted
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        )
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def alive(self, timeout: float = 5) -> bool:
        try:
            return self.ask("GET", "/healthz", timeout=timeout)[0] == 200
        except OSError:
            return False

    def gate(self, timeout: float = 5) -> bool:
        """Ask about the image that is decided."""
        question = json.dumps({"image": self.image}).encode()
        status, body, _ = self.ask("POST", "/api/v1/gate", question, {"Content-Type": "application/json"}, timeout)
        assert status == 200, (status, body)
        return json.loads(body)["verdict"] in ("allow", "warn", "deny")

    def send(self, data: bytes) -> socket.socket:
        """A connection on which this was sent, and nothing more will be."""
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.sendall(data)
        return connection

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            finally:
                self.process.kill()
                self.process.wait()
        self.database.engine.dispose()


def head(method: str, path: str, *fields: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


def closed(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection, whatever it said before."""
    connection.settimeout(0.01)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def status_of(connection: socket.socket, seconds: float = 20) -> int:
    """The status that is answered on a connection."""
    connection.settimeout(seconds)
    data = b""
    while b"\r\n" not in data:
        got = connection.recv(4096)
        assert got, "closed without an answer"
        data += got
    found = re.match(rb"HTTP/1\.1 (\d{3})", data)
    assert found, data[:100]
    return int(found[1])
