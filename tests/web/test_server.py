"""The web process's own limits of connections and heads, with an application that answers 204 to everything."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from web import server

ROOT = Path(__file__).parents[2]
LIMIT = 40
SERVE = f"""
import socket
from web import server
server._MAX_CONNECTIONS, server._ROOM = {LIMIT}, 10
listening = socket.create_server(("127.0.0.1", 0), backlog=500)
answer = lambda environ, start: start("204 No Content", []) and []
server.serve(answer, listening, lambda: print(listening.getsockname()[1], flush=True))
"""
ANSWERED, REFUSED = b"HTTP/1.1 204 ", b"HTTP/1.1 400 "


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            yield "127.0.0.1", int(process.stdout.readline())
        finally:
            process.kill()


def answers(address: tuple[str, int], data: bytes, count: int = 1) -> bytes:
    """What the server sends until ``count`` answers are there, or it closes the connection."""
    found = b""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(data)
        while found.count(b"HTTP/1.1 ") < count and (piece := connection.recv(1 << 16)):
            found += piece
    return found


AMBIGUOUS = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same host twice": b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and a length": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n",
    "identity": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    "lines that end with LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "a signed chunk size": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
}


@pytest.mark.parametrize("kind", list(AMBIGUOUS))
def test_a_head_that_a_proxy_may_read_otherwise_is_refused(address: tuple[str, int], kind: str) -> None:
    """What follows would be a request of its own to one of the two. It is not answered either."""
    found = answers(address, AMBIGUOUS[kind] + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", count=2)
    assert found.startswith(REFUSED)
    assert found.count(b"HTTP/1.1 ") == 1


def test_plain_heads_are_answered(address: tuple[str, int]) -> None:
    assert answers(address, b"GET / HTTP/1.0\r\n\r\n").startswith(ANSWERED)
    assert answers(address, b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n").startswith(ANSWERED)


def test_pipelined_requests_are_each_answered(address: tuple[str, int]) -> None:
    """Their heads together were counted as one that is too large."""
    assert answers(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3000, count=3000).count(ANSWERED) == 3000


@pytest.mark.parametrize(("idle", "closed", "pauses"), [(0, 0, True), (4, 4, True), (60, 20, False)])
def test_where_few_connections_can_be_closed_all_are_not_looked_at_for_each_new_one(
    idle: int, closed: int, pauses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.Connection, "limit", 40)
    monkeypatch.setattr(server.Connection, "makes_room", True)
    monkeypatch.setattr(server.Connection, "room_pause", 0.0)
    aborted: list[int] = []
    transports = [SimpleNamespace(abort=partial(aborted.append, n), is_closing=lambda: False) for n in range(60)]
    connections: Any = [SimpleNamespace(idle=n < idle, transport=t, head_since=n + 1) for n, t in enumerate(transports)]
    server._make_room(connections)
    assert aborted == list(range(closed))
    assert (server.Connection.room_pause > 0, server.Connection.makes_room) == (pauses, False)


def test_idle_connections_beyond_the_limit_make_room(address: tuple[str, int]) -> None:
    """The oldest are closed, several at once; the newest, and one that is used again, are answered."""
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    silent = [socket.create_connection(address, timeout=60) for _ in range(LIMIT * 3)]
    try:
        for connection in silent[-5:]:
            connection.sendall(request)
            assert connection.recv(1000).startswith(ANSWERED)
        assert answers(address, request).startswith(ANSWERED)
        open_, ends = LIMIT * 3, time.monotonic() + 60
        while open_ > LIMIT:
            assert time.monotonic() < ends, f"{open_} are still open"
            open_ = sum(map(_is_open, silent))
        assert all(map(_is_open, silent[-5:]))
    finally:
        for connection in silent:
            connection.close()


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1000) != b""
    except TimeoutError:
        return True
    except OSError:
        return False
