"""The web process: HTTP/1.1 by uvicorn, on a listening socket that the supervisor owns. Everything that an anonymous
client can hold open is limited.

uvicorn does not limit these, so this module does: a connection that sends no request, a request head that arrives
slowly or never ends, what surrounds a chunked body, a finished answer that is not read, and the number of connections.
``web.capacity`` limits bodies.

SIGTERM drains: the socket no longer accepts here (another process may go on accepting on it), and requests in flight
are answered. A kept-alive connection is closed with an answer that has ``Connection: close``: if it were closed while
idle, its next request could already be on the way and would be lost.
"""

from __future__ import annotations

import asyncio
import heapq
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

from scanner import telemetry
from scanner.config import Settings
from web import tls
from web.capacity import Bridge
from web.tls import Certificate

# A client that sends its headers slowly (Slowloris), or without an end.
_HEAD_SECONDS, _HEAD_BYTES, _HEAD_FIELDS = 15.0, 32 << 10, 100
# Two round trips. A handshake that has begun holds 50 KB and is not counted as a connection: the shorter it may take,
# the fewer can be open at once.
_HANDSHAKE_SECONDS = 5.0
# Sizes of chunks, their extensions and trailers: a base (a read of the socket can hold other requests as well), plus a
# few bytes for each of the body, because some clients send tiny chunks.
_FRAMING_BYTES, _FRAMING_PER_BYTE = 512 << 10, 8
_KEEP_ALIVE_SECONDS = 75  # the default of nginx; must be longer than a proxy keeps idle connections to us
_WRITE_SECONDS, _WRITE_RATE = 20.0, 8 << 10  # time to read an answer: a base, plus a second for every so many bytes
_BUFFERED = 256 << 20  # bytes of all finished answers that have not been read
_LINGER_SECONDS = 2.0  # for a client to read a refusal before the connection is reset under it
# Of all clients. Beyond it, those that have waited longest for a request are closed.
_MAX_CONNECTIONS = 8192
# Closed at once when there are too many. To find the oldest, every connection is looked at, which must not be done for
# each new one: 500 connections beyond the limit blocked the event loop for 14 seconds.
_ROOM = 256
# Until the next look, if the last one found too few: thousands of connections can all have a request in flight.
_ROOM_PAUSE_SECONDS = 0.5
_SWEEP_SECONDS = 1.0
_SWITCH_SECONDS = 0.001  # thread switch interval, not the default 0.005: a gate call waits less while a page renders
# An idle connection gets this long for one more request, which is answered with ``Connection: close``; requests in
# flight get the same.
DRAIN_SECONDS, _DRAIN_IDLE_SECONDS = 9, 3.0


class _HeadTooLarge(Exception):
    """The head of a request has too many bytes or fields."""


class _AmbiguousHead(Exception):
    """A proxy may have read the head of a request in another way."""


class _Transport:
    """A transport whose ``close`` lingers while the client is still sending: closing at once would send a reset, and
    the client would not read the answer.
    """

    def __init__(self, transport: asyncio.Transport, closing: Callable[[], bool]) -> None:
        self._transport, self._closing = transport, closing
        self.abort = transport.abort
        self.get_extra_info, self.get_write_buffer_size = transport.get_extra_info, transport.get_write_buffer_size
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.lingering = False

    def is_closing(self) -> bool:
        return self.lingering or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        # uvloop raises for a connection that the client has reset: each answer to it would be a traceback in the log.
        if not self._transport.is_closing():
            self._transport.write(data)

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

    # Of the process, not of one connection.
    draining = False
    limit = _MAX_CONNECTIONS
    makes_room = False  # it is due, once for all connections that are accepted meanwhile
    room_pause = 0.0  # seconds before it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol.connection_made`."""
        self.head_since: float | None = time.monotonic()
        self.full_since: float | None = None
        self.full_size = 0
        self.lingers_since: float | None = None
        self._head_bytes = 0
        self._head_refused = False
        self._in_body = False
        self._bytes_in_body = self._body_bytes = 0
        secured = transport.get_extra_info("ssl_object")
        # Empty unless the client presented one that was verified.
        self._client_certificate = (secured.getpeercert() or {}) if secured is not None else {}
        self._line = _Transport(transport, self._is_sending)
        super().connection_made(self._line)  # type: ignore[arg-type]
        if len(self.connections) > self.limit and not Connection.makes_room:
            Connection.makes_room = True
            self.loop.call_later(Connection.room_pause, _make_room, self.connections)

    def _is_sending(self) -> bool:
        """Whether the client has not yet sent the whole request that is being answered."""
        return self.cycle is not None and self.cycle.more_body

    @property
    def idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        # What still comes is read and dropped: unread bytes would turn the close into a reset.
        if self._line.lingering:
            return
        # Bytes of the socket, before parsing: a head of one endless field never reaches on_headers_complete.
        self._head_bytes += len(data)
        super().data_received(data)
        if self.head_since is None:
            self._head_bytes = 0
        elif self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self._head_refused = True
            self.send_400_response("")
        if self._in_body:
            self._bytes_in_body += len(data)
            framing = self._bytes_in_body - self._body_bytes
            if framing > _FRAMING_BYTES + _FRAMING_PER_BYTE * self._body_bytes:
                self.transport.abort()

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
        self._in_body = False
        if self._client_certificate:
            self.scope["extensions"] = {tls.CLIENT_CERTIFICATE: self._client_certificate}
        if self.head_since is None:
            self.head_since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `HttpToolsProtocol.on_header`. Trailers are dropped."""
        # uvicorn takes trailers for headers (RFC 9110, section 6.5.1, forbids it). A proxy that replaces a client's
        # headers need not look at its trailers, and thousands of them fill the memory.
        if not self._in_body:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """See `HttpToolsProtocol.on_body`."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See `HttpToolsProtocol.on_message_complete`."""
        self._in_body = False
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """See `HttpToolsProtocol.on_headers_complete`."""
        self.head_since = None
        self._in_body, self._bytes_in_body, self._body_bytes = True, 0, 0
        # Counted again on what was parsed: one read can hold a whole head, and the beginning of its body.
        if len(self.headers) > _HEAD_FIELDS or sum(len(n) + len(v) for n, v in self.headers) > _HEAD_BYTES:
            self._head_refused = True
            raise _HeadTooLarge
        # Of pipelined requests, only the bytes of the one that is incomplete count; one read holds many.
        self._head_bytes = 0
        self._refuse_ambiguous_head()
        super().on_headers_complete()
        if self.draining:
            self.cycle.keep_alive = False

    def _refuse_ambiguous_head(self) -> None:
        """Raises _AmbiguousHead for what RFC 9112 (3.2, 6.1) tells a server to refuse, and llhttp accepts."""
        names = [name for name, _ in self.headers]
        hosts, is_1_1 = names.count(b"host"), self.parser.get_http_version() == "1.1"
        # HTTP/1.0 has no Transfer-Encoding: a proxy of that version passes it on and frames the body in another way.
        if hosts > 1 or (is_1_1 and not hosts) or (not is_1_1 and b"transfer-encoding" in names):
            raise _AmbiguousHead

    def resume_writing(self) -> None:
        """See `asyncio.Protocol.resume_writing`. The reader has made progress, so it is not stuck."""
        self.full_since = None
        super().resume_writing()

    def shutdown(self) -> None:
        """See `HttpToolsProtocol.shutdown`.

        An idle connection is closed by the sweeper a little later, so that a request that is on the way is not lost.
        """
        if not self.idle:
            self.cycle.keep_alive = False
        self.head_since = time.monotonic()


def _make_room(connections: set[Any]) -> None:
    """At the limit of connections, close those that have waited longest for a request, so that new ones can be
    accepted.
    """
    Connection.makes_room = False
    wanted = max(min(_ROOM, Connection.limit // 4), len(connections) - Connection.limit)
    # Never one with a request in flight: thousands of idle connections are an attack (slowloris) or forgotten clients,
    # and a request that was accepted is answered.
    waiting = [c for c in connections if c.idle and not c.transport.is_closing()]
    for connection in heapq.nsmallest(wanted, waiting, key=lambda c: c.head_since or float("inf")):
        connection.transport.abort()
    Connection.room_pause = 0.0 if len(waiting) >= wanted else _ROOM_PAUSE_SECONDS


class _Sweeper:
    """Checks all connections once a second, which is cheaper than timers for each."""

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
        """Check one connection. Returns the number of bytes its reader has not taken."""
        size = int(connection.transport.get_write_buffer_size())
        # A reader's time grows with what it was given to read, from the moment when the buffer was first full: a fixed
        # time would cut off slow links, and no time would let a few readers hold all memory.
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
        """Abort the connections with the slowest readers until unread bytes are below the limit again."""
        full = [c for c in self._connections if c.full_since is not None]
        for connection in sorted(full, key=lambda c: float(c.full_since)):
            if buffered <= _BUFFERED:
                return
            buffered -= int(connection.transport.get_write_buffer_size())
            connection.transport.abort()


class _Server(Server):
    """uvicorn's server with the sweeper. It tells the supervisor when it is ready."""

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
            bounded = partial(loop.create_server, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
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
        self._bridge.finish()
        for task in self._background:
            task.cancel()


def serve(
    app: Any,
    listening: socket.socket,
    tell_ready: Callable[[], None] = lambda: None,
    certificate: Certificate | None = None,
) -> None:
    """Serve a WSGI application on ``listening`` until SIGTERM or SIGINT, then drain. ``tell_ready`` is called once it
    answers.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Each connection is a file. The rest is for the database, the broker and connections in their TLS handshake.
    Connection.limit = min(_MAX_CONNECTIONS, _raise_file_limit() * 3 // 4)
    # Its warnings are one line for each malformed request, so any client could fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
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
    """The web process of ``dockwarden serve``.

    There is only one, with threads, so that rate limits, metrics and SQLite's lock cover all requests.
    """
    from web import create_app, logs

    logs.configure(settings)
    telemetry.configure(settings, "web")
    serve(create_app(settings), listening, tell_ready, tls.of_settings(settings))
    telemetry.shut_down()


def _raise_file_limit() -> int:
    """Raise the limit of open files, because each connection needs one. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
