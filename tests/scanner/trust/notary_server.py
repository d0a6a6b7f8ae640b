"""A Notary server for tests: serves one tree of files over TLS on the loopback, with the faults that a case asks
for.
"""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data/trust/notary"
Tree = Mapping[str, bytes]
Faults = Mapping[str, Mapping[str, Any]]
_NOTHING = b'{"errors":[{"code":"METADATA_NOT_FOUND","message":"no such metadata","detail":{}}]}\n'


@cache
def cases() -> list[dict[str, Any]]:
    return list(json.loads((DATA / "cases.json").read_text())["cases"])


@cache
def trees() -> dict[str, dict[str, str]]:
    return dict(json.loads((DATA / "trees.json").read_text()))


@cache
def tree(name: str) -> Tree:
    """A tree's files by their path on the server."""
    return {f"/{path}": (DATA / "objects" / f"{digest}.json").read_bytes() for path, digest in trees()[name].items()}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: NotaryTestServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def _answer(self) -> None:
        if self.server.password and self._refused():
            return
        if self.path == "/v2/":
            self._send(200, b"{}")
            return
        name = self.path.partition("/_trust/tuf/")[2]
        fault = self.server.faults.get(name) or self.server.faults.get("*") or {}
        body = self.server.tree.get(self.path)
        if fault.get("close"):
            self.close_connection = True
            return
        if "delay" in fault:
            self.server.ended.wait(fault["delay"])
        if "redirect" in fault:
            self._send(302, b"", {"Location": fault["redirect"]})
        elif "drip" in fault:
            self._drip()
        elif fault.get("endless"):
            self._chunked(b" " * 65536 for _ in range(4096))
        elif "status" in fault or "body" in fault:
            self._send(fault.get("status", 200), fault.get("body", "{}").encode())
        elif body is None:
            self._send(404, _NOTHING)
        elif "truncate" in fault:
            self.close_connection = True
            self._send(200, body[: fault["truncate"]], length=len(body))
        elif fault.get("chunked"):
            self._chunked(body[i : i + 1000] for i in range(0, len(body), 1000))
        else:
            self._send(200, body + b" " * fault.get("pad", 0))

    def _refused(self) -> bool:
        """As a server does that wants a token of a token service beside it. Every password that it is given is kept."""
        given = self.headers.get("Authorization", "")
        if self.path.startswith("/token"):
            self.server.told.append(given)
            right = given == "Basic " + base64.b64encode(self.server.password.encode()).decode()
            self._send(200, b'{"token": "opensesame"}') if right else self._send(401, b"{}")
            return True
        if given == "Bearer opensesame":
            return False
        realm = f'Bearer realm="{self.server.url}/token",service="notary"'
        self._send(401, b"{}", {"WWW-Authenticate": realm})
        return True

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _chunked(self, blocks: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for block in blocks:
            self.wfile.write(b"%x\r\n" % len(block) + block + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _drip(self) -> None:
        """A header a moment, for ever: no single read ever times out."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.ended.is_set():
            self.wfile.write(b"X-Drip: 1\r\n")
            self.wfile.flush()
            time.sleep(0.05)


class NotaryTestServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, tree: Tree, faults: Faults, certificate: tuple[Path, Path] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tree, self.faults, self.asked, self.ended = tree, faults, list[str](), threading.Event()
        self.password, self.told = "", list[str]()  # NAME:PASSWORD that the token service wants; what it was given
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        if certificate is not None:  # otherwise plain HTTP, on a port that the client takes for https
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(
    tree: Tree, certificate: tuple[Path, Path] | None, faults: Faults | None = None
) -> Iterator[NotaryTestServer]:
    server = NotaryTestServer(tree, faults or {}, certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
