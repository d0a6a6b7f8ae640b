"""The web process: HTTP/1.1 by uvicorn on a listening socket that the supervisor owns, with a bound on all that a
stranger can make last.

What uvicorn does not bound is bounded here: a connection that sends no request, a head that drips or never ends, a
finished answer that nobody takes, the number of connections. Bodies are bounded in `web.capacity`. SIGTERM drains:
the socket is closed to new connections (another process may go on accepting on it), requests in flight are answered,
and a kept-alive connection is closed with an answer that says ``Connection: close``, because one that is closed
while it is idle may just carry its next request.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scanner.config import Settings
from web import tls
from web.capacity import Bridge
from web.tls import Certificate

_HEAD_SECONDS, _HEAD_BYTES, _HEAD_FIELDS = 15.0, 32 << 10, 100
_KEEP_ALIVE_SECONDS = 75  # as nginx: longer than a proxy in front of us keeps a connection to us
_WRITE_SECONDS, _WRITE_RATE = 20.0, 8 << 10  # an answer may take so long, and a second more for so many bytes
_BUFFERED = 256 << 20  # bytes of finished answers that wait for their readers, in sum
_LINGER_SECONDS = 2.0
_MAX_CONNECTIONS = 8192
_SWEEP_SECONDS = 1.0
_SWITCH_SECONDS = (
    0.001  # a page that renders gives the interpreter to a waiting gate call after so long, not after five times that
)
# Until a proxy or a client that is in the middle of its work has sent its next request; the same is given to requests
# in flight.
DRAIN_SECONDS, _DRAIN_IDLE_SECONDS = 9, 3.0


class _HeadTooLarge(Exception):
    """The head of a request has too many bytes or fields."""


class _Transport:
    """A transport whose ``close`` lets a caller who is still sending read the answer: closing at once would reset
    the connection.
    """

    def __init__(self, transport: asyncio.Transport, closing: Callable[[], bool]) -> None:
        self._transport, self._closing = transport, closing
        self.write, self.abort = transport.write, transport.abort
        self.get_extra_info, self.get_write_buffer_size = transport.get_extra_info, transport.get_write_buffer_size
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.lingering = False

    def is_closing(self) -> bool:
        return self.lingering or self._transport.is_closing()

    def close(self) -> None:
        if self.lingering or self._transport.is_closing():
            return
        if self._closing() and self._transport.can_write_eof():
            self.lingering = True
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, watched by `_Sweeper`."""

    draining = False  # of the process, not of one connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol.connection_made`."""
        self.head_since: float | None = time.monotonic()
        self.full_since: float | None = None
        self.full_size = 0
        self.lingers_since: float | None = None
        self._head_bytes = 0
        self._head_refused = False
        self._line = _Transport(transport, self._is_sending)
        super().connection_made(self._line)  # type: ignore[arg-type]
        if len(self.connections) > _MAX_CONNECTIONS:
            _make_room(self.connections)

    def _is_sending(self) -> bool:
        """Whether the caller has not sent the whole of the request that is answered."""
        return self.cycle is not None and self.cycle.more_body

    @property
    def idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        if self._line.lingering:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self.head_since is None:
            self._head_bytes = 0
        elif self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self._head_refused = True
            self.send_400_response("")

    def eof_received(self) -> None:
        """See `asyncio.Protocol.eof_received`."""
        if self._line.lingering:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """See `HttpToolsProtocol.send_400_response`: 431 for a head that is too large."""
        if not self._head_refused:
            super().send_400_response(msg)
            return
        text = b"the request's head is too large"
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(text), text)
        )
        self.transport.close()

    def on_message_begin(self) -> None:
        """See `HttpToolsProtocol.on_message_begin`."""
        super().on_message_begin()
        if self.head_since is None:
            self.head_since = time.monotonic()

    def on_headers_complete(self) -> None:
        """See `HttpToolsProtocol.on_headers_complete`."""
        self.head_since = None
        if len(self.headers) > _HEAD_FIELDS or sum(len(n) + len(v) for n, v in self.headers) > _HEAD_BYTES:
            self._head_refused = True
            raise _HeadTooLarge
        super().on_headers_complete()
        if self.draining:
            self.cycle.keep_alive = False

    def resume_writing(self) -> None:
        """See `asyncio.Protocol.resume_writing`. A reader who made room is not stuck."""
        self.full_since = None
        super().resume_writing()

    def shutdown(self) -> None:
        """See `HttpToolsProtocol.shutdown`.

        One that is idle is closed a little later, by the sweeper, and not under a request.
        """
        if not self.idle:
            self.cycle.keep_alive = False
        self.head_since = time.monotonic()


def _make_room(connections: set[Any]) -> None:
    """Close the connection that has been waiting longest without a request: more cannot be open, and new ones must
    get in.
    """
    waiting = [c for c in connections if c.idle and not c.transport.is_closing()]
    oldest = min(waiting, key=lambda c: c.head_since or float("inf"), default=None)
    if oldest is not None:
        oldest.transport.abort()


class _Sweeper:
    """Looks at every connection once a second, which is cheaper than timers for each."""

    def __init__(self, connections: set[Any]) -> None:
        self._connections = connections

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now, buffered = time.monotonic(), 0
            for connection in list(self._connections):
                buffered += self._look_at(connection, now)
            if buffered > _BUFFERED:
                self._relieve(buffered)

    def _look_at(self, connection: Connection, now: float) -> int:
        """Judge one connection. Returns the bytes that wait for its reader."""
        size = int(connection.transport.get_write_buffer_size())
        if not size:
            connection.full_since = None
        elif connection.full_since is None:
            connection.full_since, connection.full_size = now, size
        elif now - connection.full_since > _WRITE_SECONDS + connection.full_size / _WRITE_RATE:
            connection.transport.abort()
            return 0
        if connection.transport.is_closing():
            if connection.lingers_since is None:
                connection.lingers_since = now
            elif now - connection.lingers_since > _LINGER_SECONDS and not size:
                connection.transport.abort()
        elif connection.idle and not size:
            self._look_at_idle(connection, now)
        return size

    def _look_at_idle(self, connection: Connection, now: float) -> None:
        if connection.head_since is None:
            if connection.timeout_keep_alive_task is None:
                connection.head_since = now
        elif now - connection.head_since > (_DRAIN_IDLE_SECONDS if Connection.draining else _HEAD_SECONDS):
            connection.transport.close()

    def _relieve(self, buffered: int) -> None:
        """Give up the slowest readers until what waits for the others is bounded again."""
        full = [c for c in self._connections if c.full_since is not None]
        for connection in sorted(full, key=lambda c: float(c.full_since)):
            if buffered <= _BUFFERED:
                return
            buffered -= int(connection.transport.get_write_buffer_size())
            connection.transport.abort()


class _Server(Server):
    """uvicorn's server with the sweeper, and with a word to the supervisor when it answers."""

    def __init__(
        self, config: Config, bridge: Bridge, tell_ready: Callable[[], None], certificate: Certificate | None
    ) -> None:
        super().__init__(config)
        self._bridge, self._tell_ready, self._certificate = bridge, tell_ready, certificate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `Server.startup`."""
        if self._certificate is not None:
            # uvicorn sets no bound for a TLS handshake, and the loop's own is a minute. A connection is not counted
            # before its handshake is done, so silent ones would take every file descriptor.
            loop = asyncio.get_running_loop()
            bounded = partial(loop.create_server, ssl_handshake_timeout=_HEAD_SECONDS)
            loop.create_server = bounded  # type: ignore[method-assign]
        await super().startup(sockets)
        self._background = [asyncio.create_task(_Sweeper(self.server_state.connections).run())]
        if self._certificate is not None:
            self._background.append(asyncio.create_task(self._certificate.watch()))
        self._tell_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `Server.shutdown`."""
        Connection.draining = True
        self._bridge.leaving.set()
        await super().shutdown(sockets)
        for task in self._background:
            task.cancel()


def serve(
    app: Any,
    listening: socket.socket,
    tell_ready: Callable[[], None] = lambda: None,
    certificate: Certificate | None = None,
) -> None:
    """Answer on ``listening`` with a WSGI application until SIGTERM or SIGINT, then drain.

    ``tell_ready`` is called when it answers.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    _raise_file_limit()
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # at WARNING it writes a line for each malformed request
    bridge = Bridge(app)
    config = Config(
        bridge,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # trusted proxies are counted by the application
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    config.load()
    config.ssl = certificate.context if certificate is not None else None
    server = _Server(config, bridge, tell_ready, certificate)
    try:
        server.run([listening])
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def run(settings: Settings, listening: socket.socket, tell_ready: Callable[[], None]) -> None:
    """The web process of ``dockwarden serve``: one, with threads, so that SQLite, metrics and throttling see every
    request.
    """
    from web import create_app, logs

    logs.configure(settings)
    serve(create_app(settings), listening, tell_ready, tls.of_settings(settings))


def _raise_file_limit() -> None:
    """As many open files as we may have: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
