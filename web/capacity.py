"""Capacity by kind of route, and the way from the event loop to a thread: a stranger or a slow page takes none of
the gate's.

The event loop receives each request whole before a thread sees it. A thread is held by a request that is ready to be
answered, never by one that is still arriving, and never by a reader who is slow to take a finished answer. Each kind
of route has threads of its own and a bounded queue before them; a request that finds the queue full gets 503 with
Retry-After at once.
"""

from __future__ import annotations

import asyncio
import io
import logging
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import orjson

from web.security import ADMISSION, LEAVING, Admission, bare_headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Headers = list[tuple[bytes, bytes]]

# Read before the caller is known: a JSON question, a sign-in form. More is read only for those whom the headers let in.
EARLY_BODY = 64 << 10
_EARLY_SECONDS = 1.0  # a body that is this late costs its sender a look at the headers first
_BODY_SECONDS, _BODY_RATE = (
    15.0,
    8 << 10,
)  # a body has so long, and a second more for each so many bytes that did arrive
_LARGE_BODIES = 32  # at once, of each kind of route: a bound on memory
_STALLED_SECONDS = 30.0  # a stream whose reader takes nothing for so long is given up, and its thread is free
_MESSAGES = {
    408: ("the request took too long to arrive", "request_timeout", "send it faster"),
    413: ("the body is too large", "too_large", ""),
    500: ("Internal server error. The request was not carried out.", "internal_error", ""),
    503: ("the server is busy with other requests of this kind", "busy", "try again in a few seconds"),
}
_RETRY_AFTER = 3
_TELL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of route.

    ``threads`` answer at once, ``waiting`` more requests queue, none longer than ``patience`` seconds.
    """

    name: str
    threads: int
    waiting: int
    patience: float


HEALTH = Kind("health", 1, 500, 5)  # /healthz alone: whatever else is slow, the process is seen to live
MONITORING = Kind("monitoring", 2, 20, 10)
GATE = Kind("gate", 16, 500, 30)  # GATE_WAITERS of them may wait for scans; the others answer meanwhile
WEBHOOKS = Kind("webhooks", 4, 500, 30)
SIGN_IN = Kind("sign-in", 3, 60, 10)  # a password costs 64 MiB and 50 ms, and a stranger may ask
EVENTS = Kind("events", 12, 50, 10)  # more than may watch at once (GATE_WAITERS): the others get the first event only
EXPORTS = Kind("exports", 4, 20, 5)  # each holds a connection to the database until its reader has all of it
INVENTORY = Kind("inventory", 1, 20, 60)  # a snapshot is judged while its sender waits: some seconds, where all is new
STATIC = Kind("static", 2, 200, 10)
API = Kind("api", 4, 200, 30)
PAGES = Kind(
    "pages", 2, 60, 15
)  # rendering holds the interpreter: two at once are as fast as many, and leave room between them
KINDS = (HEALTH, MONITORING, GATE, WEBHOOKS, SIGN_IN, EVENTS, EXPORTS, INVENTORY, STATIC, API, PAGES)

_EXACT = {
    "/healthz": HEALTH,
    "/readyz": MONITORING,
    "/metrics": MONITORING,
    "/api/v1/gate": GATE,
    "/api/v1/inventory": INVENTORY,
}
_PREFIXES = (
    ("/adapters/", GATE),
    ("/webhooks/", WEBHOOKS),
    ("/static/", STATIC),
    ("/sign-in", SIGN_IN),
    ("/api/", API),
)


def kind_of(path: str) -> Kind:
    """The kind of route that a path belongs to, told without routing it."""
    if (exact := _EXACT.get(path)) is not None:
        return exact
    for prefix, kind in _PREFIXES:
        if path.startswith(prefix):
            return _of_api(path) if kind is API else kind
    return PAGES


def _of_api(path: str) -> Kind:
    if path.startswith("/api/v1/scans/") and path.endswith("/events"):
        return EVENTS
    return EXPORTS if path == "/api/v1/audit-log/export" else API


@dataclass(slots=True)
class Answer:
    """What a WSGI application answered. ``body`` None: it follows piece by piece."""

    status: int
    headers: Headers
    body: bytes | None


@dataclass(slots=True)
class _Job:
    """One call of the application. ``deliver`` and ``push`` are called in the thread that works on it."""

    environ: dict[str, Any]
    answered: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Future[None]
    send: Send | None = None
    started: bool = False
    gone: threading.Event = field(default_factory=threading.Event)

    def deliver(self, answer: Answer) -> None:
        self._resolve(self.answered, answer)

    def end(self) -> None:
        """Record that a stream has ended or was abandoned."""
        self._resolve(self.ended, None)

    def _resolve(self, future: asyncio.Future[Any], result: Any) -> None:
        def resolve() -> None:
            if not future.done():
                future.set_result(result)

        try:
            self.loop.call_soon_threadsafe(resolve)
        except RuntimeError:  # the loop has ended, and the connection with it
            self.gone.set()

    def push(self, piece: bytes, more: bool = True) -> bool:
        """Send a piece of a stream, waiting for a reader who is behind. False: give up."""
        if self.gone.is_set() or self.send is None:
            return False
        message = {"type": "http.response.body", "body": piece, "more_body": more}
        sent = asyncio.run_coroutine_threadsafe(_awaited(self.send(message)), self.loop)
        try:
            sent.result(_STALLED_SECONDS)
        except (TimeoutError, asyncio.CancelledError, RuntimeError):
            sent.cancel()
            self.gone.set()
        return not self.gone.is_set()


async def _awaited(something: Awaitable[object]) -> None:
    await something


class Busy(Exception):
    """All threads of a kind are busy and its queue is full."""


class Pool:
    """The threads of one kind of route.

    They are daemons: a request that hangs does not keep the process from ending.
    """

    def __init__(self, app: WSGIApplication, kind: Kind) -> None:
        self._app, self._kind = app, kind
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._threads = 0
        self._open = 0  # counted in the event loop alone
        self._tell_again = 0.0
        self.large_bodies = 0

    async def call(self, environ: dict[str, Any], send: Send | None = None) -> tuple[Answer, _Job]:
        """The application's answer. Raises Busy."""
        if self._open >= self._kind.threads + self._kind.waiting:
            raise Busy
        if self._threads < self._kind.threads and self._open >= self._threads:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._kind.name}-{self._threads}", daemon=True).start()
        loop = asyncio.get_running_loop()
        job = _Job(environ, loop.create_future(), loop, loop.create_future(), send)
        queued = self._open >= self._kind.threads
        self._open += 1
        self._jobs.put(job)
        try:
            answer = await (self._soon(job) if queued else job.answered)
        except BaseException:
            job.gone.set()
            self._open -= 1
            raise
        if answer.body is None:  # its thread is held until the stream ends
            job.ended.add_done_callback(self._release)
        else:
            self._open -= 1
        return answer, job

    def tell_busy(self) -> None:
        """Log at intervals that requests of this kind are refused."""
        if time.monotonic() > self._tell_again:
            self._tell_again = time.monotonic() + _TELL_SECONDS
            logging.getLogger(__name__).warning(
                "too many requests at once: answering 503", extra={"kind": self._kind.name}
            )

    def _release(self, _: asyncio.Future[None]) -> None:
        self._open -= 1

    async def _soon(self, job: _Job) -> Answer:
        """The answer of a job that waits for a thread. Raises Busy when none takes it up for too long."""
        done, _ = await asyncio.wait({job.answered}, timeout=self._kind.patience)
        if not done and not job.started:
            raise Busy
        return await job.answered

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job.gone.is_set():
                continue
            job.started = True
            try:
                _run(self._app, job)
            except (
                Exception
            ):  # the last boundary of a thread that must live on; Flask has answered for its own errors before
                logging.getLogger(__name__).exception("a request broke off")
                job.gone.set()
                job.deliver(refusal(500, job.environ))


def _run(app: WSGIApplication, job: _Job) -> None:
    """Call the application and deliver its answer: whole where its length is known, else piece by piece."""
    status, headers = 500, []

    def start_response(line: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        nonlocal status, headers
        status, headers = int(line[:3]), [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in fields]
        return _no_write

    pieces: Iterable[bytes] = app(job.environ, start_response)
    try:
        sized = any(name == b"content-length" for name, _ in headers)
        if sized or status in (204, 304) or job.environ["REQUEST_METHOD"] == "HEAD" or job.send is None:
            job.deliver(Answer(status, headers, b"".join(pieces)))
            return
        job.deliver(Answer(status, headers, None))
        try:
            if all(job.push(piece) for piece in pieces if piece):
                job.push(b"", more=False)
        finally:
            job.end()
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _no_write(data: bytes) -> object:
    raise NotImplementedError("answers are returned, not written")


def refusal(status: int, environ: Mapping[str, Any]) -> Answer:
    """A problem document of the server itself, for what the application never saw."""
    detail, reason, hint = _MESSAGES[status]
    document = {
        "type": f"urn:dockwarden:problem:{reason.replace('_', '-')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reason": reason,
    }
    if hint:
        document["hint"] = hint
    body, kind = orjson.dumps(document), b"application/problem+json"
    path = environ["PATH_INFO"]
    if "text/html" in environ.get("HTTP_ACCEPT", "") and not path.startswith(("/api/", "/webhooks/", "/adapters/")):
        text = (
            "<!doctype html><html "
            f"lang=en><title>{document['title']}</title><h1>{document['title']}</h1><p>{detail}. {hint}."
        )
        body, kind = text.encode(), b"text/html; charset=utf-8"
    headers = [(name.lower().encode(), value.encode()) for name, value in bare_headers()]
    headers += [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", str(_RETRY_AFTER).encode()))
    return Answer(status, headers, body)


class Bridge:
    """The ASGI application over a WSGI application."""

    def __init__(self, app: WSGIApplication) -> None:
        self._pools = {kind.name: Pool(app, kind) for kind in KINDS}
        self.leaving = threading.Event()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        environ = environ_of(scope) | {LEAVING: self.leaving}
        pool = self._pools[kind_of(environ["PATH_INFO"]).name]
        job = None
        try:
            early = await self._receive(environ, pool, receive)
            if early is None:
                answer, job = await pool.call(environ, send)
            else:
                answer = early
        except Busy:
            pool.tell_busy()
            answer = refusal(503, environ)
        except ConnectionError:
            return
        if environ["wsgi.input"] is None:  # something of the body was not read, and will not be
            answer.headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if answer.body is not None:
            await send({"type": "http.response.body", "body": answer.body})
        elif job is not None:
            await _follow(job, receive)

    async def _receive(self, environ: dict[str, Any], pool: Pool, receive: Receive) -> Answer | None:
        """Put the body into ``wsgi.input``. Returns the answer instead where the request ends before its body is here.

        Raises Busy; ConnectionError when the caller is gone.
        """
        length, chunked = environ.get("CONTENT_LENGTH", ""), "HTTP_TRANSFER_ENCODING" in environ
        if not chunked and (not length or length == "0"):
            environ["wsgi.input"] = io.BytesIO()
            return None
        announced = int(length or 0)
        body = _Body(receive)
        if announced <= EARLY_BODY and "HTTP_EXPECT" not in environ:
            await body.more(EARLY_BODY, _EARLY_SECONDS)
        if not body.complete:
            # Slow or large: who asks is found out from the headers alone, before another byte is read for them.
            asked = Admission()
            answer, _ = await pool.call(environ | {"wsgi.input": io.BytesIO(), "CONTENT_LENGTH": "0", ADMISSION: asked})
            if (limit := asked.allowed) is None:
                return answer
            if announced > limit:
                return refusal(413, environ)
            if pool.large_bodies >= _LARGE_BODIES and announced > EARLY_BODY:
                raise Busy
            pool.large_bodies += 1
            try:
                await body.more(limit)
            finally:
                pool.large_bodies -= 1
            if not body.complete:
                return refusal(413 if len(body.data) > limit else 408, environ)
        environ["wsgi.input"] = io.BytesIO(body.data)
        environ["CONTENT_LENGTH"] = str(len(body.data))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return None


class _Body:
    """A body that arrives."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._began = receive, time.monotonic()
        self.data = bytearray()
        self.complete = False

    async def more(self, limit: int, seconds: float | None = None) -> None:
        """Read to the end, or until ``limit`` is passed or the time is over: ``seconds``, else as its rate allows.

        Raises ConnectionError.
        """
        while not self.complete and len(self.data) <= limit:
            allowed = _BODY_SECONDS + len(self.data) / _BODY_RATE if seconds is None else seconds
            try:
                async with asyncio.timeout(max(0.0, self._began + allowed - time.monotonic())):
                    message = await self._receive()
            except TimeoutError:
                return
            if message["type"] == "http.disconnect":
                raise ConnectionError
            self.data += message.get("body", b"")
            self.complete = not message.get("more_body", False)
        if len(self.data) > limit:
            self.complete = False


async def _follow(job: _Job, receive: Receive) -> None:
    """Until a stream has ended, or its reader has left, which the thread that writes it is told."""
    left = asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait({left, job.ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        job.gone.set()
        left.cancel()


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def environ_of(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The WSGI environment of a request (PEP 3333). ``wsgi.input`` None: nothing of the body has been read yet.

    A header with an underscore is dropped: ``X_Forwarded_For`` would become what ``X-Forwarded-For`` becomes.
    """
    server, client = scope["server"] or ("", None), scope["client"] or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": None,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        if b"_" in name:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}" if key in environ else text
    return environ
