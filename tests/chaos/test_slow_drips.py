"""Registries, token services and mirrors that send a byte a second: each read is in time, the whole would take
years.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from scanner.advisories import mirror
from scanner.config import Settings
from scanner.errors import RemoteError
from scanner.model.reference import Descriptor, Digest
from tests.scanner.registry.test_client import Liar, client, liar, reference

PATIENCE = 60.0  # an answer that drips is given up in about 20 seconds


class Drip:
    """Answers that drip from a certain place on, until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def body(self, handler: BaseHTTPRequestHandler, first: int = 0) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        handler.wfile.write(b" " * first)
        self._drip(handler, b" ")

    def burst_then_drip(self, handler: BaseHTTPRequestHandler) -> None:
        self.body(handler, 32 << 20)

    def headers(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self._drip(handler, b"x")

    def chunks(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        self._drip(handler, b"1\r\n \r\n")

    def token(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/token"):
            self.body(handler)
        else:
            realm = f'Bearer realm="http://{handler.headers["Host"]}/token"'
            handler.give(401, WWW_Authenticate=realm)  # type: ignore[attr-defined]

    def redirect(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/elsewhere"):
            self.body(handler)
        else:
            handler.give(307, Location="/elsewhere")  # type: ignore[attr-defined]

    def _drip(self, handler: BaseHTTPRequestHandler, piece: bytes) -> None:
        while not self.over.wait(1.0):
            handler.wfile.write(piece)
            handler.wfile.flush()


@contextmanager
def dripping(answer: str) -> Iterator[Liar]:
    drip = Drip()
    with liar(getattr(drip, answer)) as there:
        try:
            yield there
        finally:
            drip.over.set()


def manifest(there: Liar) -> None:
    with client(there.host) as asking:
        asking.manifest(reference(there.host))


def document(there: Liar) -> None:
    with client(there.host) as asking:
        asking.blob(reference(there.host), Digest.of(b"config"), 1 << 20)


def layer(there: Liar) -> None:
    descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(b"layer"), 1 << 30)
    with client(there.host) as asking, asking.stream_blob(reference(there.host), descriptor) as chunks:
        for _ in chunks:
            pass


def advisories(there: Liar) -> None:
    settings = Settings(insecure_registries=(there.host,))
    mirror.fetch(settings, f"http://{there.host}/db.tar.gz", mirror.DATABASE, Path("/dev/null"))


CASES: list[tuple[str, Callable[[Liar], None]]] = [
    (answer, ask) for answer in ("body", "headers", "chunks") for ask in (manifest, document, layer, advisories)
]
CASES += [
    ("burst_then_drip", layer),
    ("burst_then_drip", advisories),
    ("token", manifest),
    ("token", layer),
    ("redirect", layer),
]


def test_a_slow_drip_ends_by_its_rate() -> None:
    """All at once: each takes as long as a window of the rate."""

    def ended(case: tuple[str, Callable[[Liar], None]]) -> tuple[str, float, str]:
        answer, ask = case
        started = time.monotonic()
        with dripping(answer) as there, pytest.raises(RemoteError) as given_up:
            ask(there)
        return f"{answer} of {ask.__name__}", time.monotonic() - started, given_up.value.reason

    with ThreadPoolExecutor(len(CASES)) as pool:
        found = list(pool.map(ended, CASES))
    assert [f"{name}: {seconds:.0f} s" for name, seconds, _ in found if seconds > PATIENCE] == []
    assert {reason for _, _, reason in found} <= {"registry_timeout", "mirror_unreachable"}
