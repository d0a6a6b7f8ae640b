"""Serves layers to an engine that fetches them: our verified layers, for one scan, protected by a key of that scan.

Clair pulls layers by URL. A registry's URL would require giving it credentials, would let it read bytes that we have
not verified, and does not exist for an archive. Clair therefore gets URLs of this process, which serves exactly the
layers of this scan. Each has a token that is valid for this layer until the deadline of the scan. The token is sent in
a header, because URLs are logged.
"""

from __future__ import annotations

import hmac
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from scanner.config import Secret
from scanner.errors import EngineError

_CONNECTIONS = 32  # Clair fetches a few layers at once; others wait
# For a client that opens a connection and sends nothing.
_IDLE_SECONDS = 30.0
_PREFIX = "/layers/"


@dataclass(frozen=True)
class Offer:
    """How to fetch one layer: Clair's ``LayerDescription`` without the digest."""

    uri: str
    token: Secret


@dataclass(frozen=True)
class LayerServer:
    """The served files, by digest. ``base``: the URL that the engine uses."""

    files: Mapping[str, Path]
    key: bytes
    base: str

    def offer(self, digest: str, seconds: float) -> Offer:
        """Return a URL and a token for one layer, valid for ``seconds``."""
        expires = int(time.time() + seconds)
        return Offer(f"{self.base}{_PREFIX}{digest}?expires={expires}", Secret(self.sign(digest, expires)))

    def sign(self, digest: str, expires: int) -> str:
        return hmac.new(self.key, f"{digest} {expires}".encode(), "sha256").hexdigest()

    def file(self, target: str, authorization: str) -> Path | None:
        """Return the file for a request, or None. Every refusal gives the same answer, so it reveals nothing."""
        parts = urlsplit(target)
        digest = parts.path.removeprefix(_PREFIX)
        expires = (parse_qs(parts.query).get("expires") or [""])[0]
        # `int` accepts digits of other scripts and spaces, and takes quadratic time for very long texts.
        if not expires.isascii() or not expires.isdecimal() or len(expires) > 12:
            return None
        # In constant time: the server listens on a network, and byte by byte the token could be guessed.
        authorized = hmac.compare_digest(authorization.encode(), f"Bearer {self.sign(digest, int(expires))}".encode())
        return self.files.get(digest) if authorized and int(expires) >= time.time() else None


@contextmanager
def serve_layers(files: Mapping[str, Path], listen: str, public_url: str) -> Iterator[LayerServer]:
    """Serve ``files`` while the block runs.

    ``listen``: ``HOST:PORT`` (port 0: any free one). ``public_url``: the URL by which the engine reaches us, if it
    differs. Raises EngineError if the address cannot be listened on.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise EngineError(
            f"not an address to listen on: {listen!r}",
            reason="engine_misconfigured",
            hint="DOCKWARDEN_CLAIR_LAYERS_ADDRESS must be HOST:PORT",
        )
    holder: list[LayerServer] = []
    handler = type("Handler", (_Handler,), {"holder": holder})
    try:
        server = _Server((host.strip("[]"), int(port)), handler)
    except OSError as error:
        raise EngineError(
            f"cannot listen on {listen}: {error.strerror}",
            reason="engine_misconfigured",
            hint="see DOCKWARDEN_CLAIR_LAYERS_ADDRESS in docs/clair.md",
        ) from error
    base = public_url.rstrip("/") or f"http://{host}:{server.server_address[1]}"
    holder.append(LayerServer(files, secrets.token_bytes(32), base))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="layers", daemon=True)
    thread.start()
    try:
        yield holder[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def own_address(url: str) -> str:
    """Return the local address that routes to the host of ``url``: most likely that host can reach it."""
    parts = urlsplit(url)
    try:
        family, _, _, _, target = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)  # a datagram socket: nothing is sent
            found = str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
    return f"[{found}]" if ":" in found else found


class _Server(ThreadingHTTPServer):
    """Serves a bounded number of connections; further ones are closed."""

    daemon_threads = True
    block_on_close = False  # readers are cut off: the files are removed with the scan

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that disconnects is not an error."""


class _Handler(BaseHTTPRequestHandler):
    holder: ClassVar[list[LayerServer]]
    timeout = _IDLE_SECONDS
    server_version, sys_version = "dockwarden", ""

    def do_GET(self) -> None:
        path = self.holder[0].file(self.path, self.headers.get("Authorization", "")) if self.holder else None
        if path is None:
            self.send_error(404)
            return
        with path.open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-tar")
            self.send_header("Content-Length", str(path.stat().st_size))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            shutil.copyfileobj(file, self.wfile, 1 << 20)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests contain tokens."""
