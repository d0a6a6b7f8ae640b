"""Capacity by kind of route, and the bridge from the event loop to threads: anonymous or slow clients cannot use up the
gate's threads.

The event loop receives each request completely before a thread handles it. A thread is occupied only while a request is
answered, never while it arrives, nor while a slow reader receives a finished answer. Each kind of route has its own
threads and a bounded queue; if the queue is full, a request gets 503 with Retry-After at once.
"""

from __future__ import annotations

import asyncio
import io
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import orjson

from web.security import ADMISSION, FAILURE, LATER, LEAVING, Admission, Later, bare_headers
from web.tls import CLIENT_CERTIFICATE

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Headers = list[tuple[bytes, bytes]]

# Read before the caller is authenticated: a JSON question, a sign-in form. More is read only after the headers are
# accepted.
EARLY_BODY = 64 << 10
_EARLY_SECONDS = 1.0  # if a body takes longer, the headers are checked before more is read
# Time for a body: a base, plus a second for every so many received bytes.
_BODY_SECONDS, _BODY_RATE = (
    15.0,
    8 << 10,
)
# Concurrently, for each kind of route: limits memory. A body without a length counts with the most it may have.
_LARGE_BODIES, _LARGE_BYTES = 32, 256 << 20
_STALLED_SECONDS = 30.0  # a stream is aborted if its reader takes nothing for this long, which frees the thread
_MESSAGES = {
    408: ("the request took too long to arrive", "request_timeout", "check the connection"),
    413: ("the body is too large", "too_large", "send less at once"),
    500: ("Internal server error. The request was not carried out.", "internal_error", ""),
    503: ("the server is busy with other requests of this kind", "busy", "try again in a few seconds"),
}
# Some senders show nobody what they were answered.
_TOO_LARGE = "a request is larger than its limit: answering 413"
# Seconds; by then a queue has usually moved on.
_RETRY_AFTER = 3
# Between two log lines about refusals: an attack must not fill the log.
_TELL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of route: ``threads`` answer concurrently, ``waiting`` more requests queue for at most ``patience``
    seconds.
    """

    name: str
    threads: int
    waiting: int
    patience: float


HEALTH = Kind("health", 1, 500, 5)  # /healthz alone: answers even if everything else is slow
MONITORING = Kind("monitoring", 2, 20, 10)
GATE = Kind("gate", 16, 500, 30)  # GATE_WAITERS of them may wait for scans; the others keep answering
WEBHOOKS = Kind("webhooks", 4, 500, 30)
SIGN_IN = Kind("sign-in", 3, 60, 10)  # a password costs 64 MiB and 50 ms, and callers are anonymous
# A sign-in at an identity provider waits for that provider: it must not hold up those with a password.
PROVIDER = Kind("provider", 3, 60, 10)
# More than the watchers allowed (GATE_WAITERS); the others get the first event only.
EVENTS = Kind("events", 12, 50, 10)
EXPORTS = Kind("exports", 4, 20, 5)  # each holds a connection to the database until its reader has received everything
# A snapshot is evaluated while its sender waits: seconds, if everything is new.
INVENTORY = Kind("inventory", 1, 20, 60)
STATIC = Kind("static", 2, 200, 10)
API = Kind("api", 4, 200, 30)
# Rendering holds the GIL: more threads would not be faster, and would delay other routes.
PAGES = Kind("pages", 2, 60, 15)
KINDS = (HEALTH, MONITORING, GATE, WEBHOOKS, SIGN_IN, PROVIDER, EVENTS, EXPORTS, INVENTORY, STATIC, API, PAGES)

_EXACT = {
    "/healthz": HEALTH,
    "/readyz": MONITORING,
    "/metrics": MONITORING,
    "/api/v1/gate": GATE,
    "/api/v1/inventory": INVENTORY,
    "/api/v1/gate/workloads": INVENTORY,
}
_PREFIXES = (
    ("/adapters/", GATE),
    ("/webhooks/", WEBHOOKS),
    ("/static/", STATIC),
    ("/sign-in/oidc", PROVIDER),
    ("/sign-in", SIGN_IN),
    ("/api/", API),
)


def kind_of(path: str) -> Kind:
    """The kind of route of a path, without routing it."""
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
    """The answer of a WSGI application. ``body`` None: it is streamed."""

    status: int
    headers: Headers
    body: bytes | None


@dataclass(slots=True)
class _Job:
    """One call of the application. ``deliver`` and ``push`` are called in the worker thread."""

    environ: dict[str, Any]
    answered: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Future[None]
    send: Send | None = None  # for a stream; None: the answer is collected
    started: bool = False  # a thread has begun with it, so it is answered however long it takes
    gone: threading.Event = field(default_factory=threading.Event)  # the client has left: a stream stops

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
        """Send a piece of a stream, waiting for a slow reader. Returns False to abort."""
        if self.gone.is_set() or self.send is None:
            return False
        message = {"type": "http.response.body", "body": piece, "more_body": more}
        sent = asyncio.run_coroutine_threadsafe(_wait_for(self.send(message)), self.loop)
        try:
            sent.result(_STALLED_SECONDS)
        except (TimeoutError, asyncio.CancelledError, RuntimeError):
            sent.cancel()
            self.gone.set()
        return not self.gone.is_set()


async def _wait_for(something: Awaitable[object]) -> None:
    await something


class Busy(Exception):
    """All threads of a kind are busy and its queue is full."""


class Pool:
    """The threads of one kind of route. They are daemons, so a hanging request does not keep the process alive."""

    def __init__(self, app: WSGIApplication, kind: Kind) -> None:
        self._app, self._kind = app, kind
        # None: run what is to be done after answers.
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._open = 0  # counted in the event loop alone
        self._lock = threading.Lock()  # guards the next two
        self._busy = 0  # as _open, without the requests that are answered later
        self._afterwards: deque[Callable[[], object]] = deque()
        self._tell_again: dict[str, float] = {}
        self.large_bodies = self.large_bytes = 0

    async def call(self, environ: dict[str, Any], send: Send | None = None) -> tuple[Answer, _Job]:
        """Return the application's answer. Raises Busy."""
        if self._open >= self._kind.threads + self._kind.waiting:
            raise Busy
        # Threads are started when they are needed: a quiet server has few.
        if self._threads < self._kind.threads and self._busy >= self._threads:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._kind.name}-{self._threads}", daemon=True).start()
        loop = asyncio.get_running_loop()
        job = _Job(environ, loop.create_future(), loop, loop.create_future(), send)
        # Only a queued request may be refused for waiting too long. One that has begun is answered, however long it
        # takes.
        queued = self._busy >= self._kind.threads
        self._open += 1
        self._add_job(job)
        try:
            answer = await (self._soon(job) if queued else job.answered)
        except BaseException:
            job.gone.set()
            self._open -= 1
            raise
        if answer.body is None:  # its thread is occupied until the stream ends
            job.ended.add_done_callback(self._release)
        else:
            self._open -= 1
        return answer, job

    def busy(self) -> int:
        """Return the number of requests that are being answered, or wait for a thread."""
        return self._busy

    def _add_job(self, job: _Job) -> None:
        with self._lock:
            self._busy += 1
        self._jobs.put(job)

    def tell(self, refusal: str) -> None:
        """Log at intervals that requests of this kind are refused. The path is not logged: it may hold a secret."""
        if time.monotonic() > self._tell_again.get(refusal, 0.0):
            self._tell_again[refusal] = time.monotonic() + _TELL_SECONDS
            logging.getLogger(__name__).warning(refusal, extra={"kind": self._kind.name})

    def _release(self, _: asyncio.Future[None]) -> None:
        self._open -= 1

    async def _soon(self, job: _Job) -> Answer:
        """Wait for the answer of a queued job. Raises Busy if no thread starts it in time."""
        done, _ = await asyncio.wait({job.answered}, timeout=self._kind.patience)
        if not done and not job.started:
            raise Busy
        return await job.answered

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                self.run_afterwards()
                continue
            answer = None
            try:
                # Its client has gone while it was queued: nobody would read the answer.
                if not job.gone.is_set():
                    job.started = True
                    answer = _run(self._app, job, None if FAILURE in job.environ else Later(self.busy))
            except Exception:
                # The last boundary of a thread that must live on; Flask has answered for its own errors before.
                logging.getLogger(__name__).exception("unexpected error in a request")
                job.gone.set()
                job.deliver(refusal(500, job.environ))
            finally:
                with self._lock:
                    self._busy -= 1
            if answer is not None:
                self._answer_later(job, answer)

    def _answer_later(self, job: _Job, answer: Answer) -> None:
        """Begin what an answer without its body waits for. See `Later`."""
        later: Later = job.environ.pop(LATER)
        assert later.begin is not None

        def send(body: bytes) -> None:
            length = (b"content-length", str(len(body)).encode())
            job.deliver(Answer(answer.status, [*answer.headers, length], body))
            if later.then:
                # One job for all that are answered together: a thread is woken once. With the lock, because the thread
                # that runs the last one must not end in between: nobody would be woken for these, nor for later ones.
                with self._lock:
                    is_first = not self._afterwards
                    self._afterwards.extend(later.then)
                if is_first:
                    self._jobs.put(None)

        def again(error: Exception | None) -> None:
            job.environ[FAILURE] = error
            job.environ["wsgi.input"].seek(0)
            self._add_job(job)

        try:
            later.begin(send, again)
        except Exception:
            # As in `_work`: neither function will be called.
            logging.getLogger(__name__).exception("unexpected error in a request")
            job.deliver(refusal(500, job.environ))

    def run_afterwards(self) -> None:
        """Do what is to be done after answers."""
        while True:
            with self._lock:
                if not self._afterwards:
                    return
                work = self._afterwards.popleft()
            try:
                work()
            except Exception:
                # As above. The answer has been sent, so nobody else learns of it.
                logging.getLogger(__name__).exception("unexpected error after a request")


def _run(app: WSGIApplication, job: _Job, later: Later | None = None) -> Answer | None:
    """Call the application and deliver its answer: as a whole if its length is known, otherwise in pieces.

    Returns the answer without its body, and delivers nothing, if the application has set ``later.begin`` and did not
    fail after that.
    """
    job.environ[LATER] = later
    status, headers = 500, []

    def start_response(line: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        nonlocal status, headers
        status, headers = int(line[:3]), [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in fields]
        return _no_write

    pieces: Iterable[bytes] = app(job.environ, start_response)
    try:
        # An error after the view (a hook of the application) is answered as it is, and nothing is begun.
        if later is not None and later.begin is not None and status < 400:
            return Answer(status, [field for field in headers if field[0] != b"content-length"], None)
        sized = any(name == b"content-length" for name, _ in headers)
        if sized or status in (204, 304) or job.environ["REQUEST_METHOD"] == "HEAD" or job.send is None:
            job.deliver(Answer(status, headers, b"".join(pieces)))
            return None
        job.deliver(Answer(status, headers, None))
        try:
            if all(job.push(piece) for piece in pieces if piece):
                job.push(b"", more=False)
        finally:
            job.end()
        return None
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _no_write(data: bytes) -> object:
    raise NotImplementedError("answers are returned, not written")


def refusal(status: int, environ: Mapping[str, Any]) -> Answer:
    """A problem document by the server itself, for requests that never reached the application."""
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
        sentences = [detail, hint]
        if environ["REQUEST_METHOD"] == "POST":
            sentences += ["nothing was changed", "go back in your browser, and submit the form again"]
        told = " ".join(f"{each[0].upper()}{each[1:].rstrip('.')}." for each in sentences if each)
        text = f"<!doctype html><html lang=en><title>{document['title']}</title><h1>{document['title']}</h1><p>{told}"
        body, kind = text.encode(), b"text/html; charset=utf-8"
    headers = [(name.lower().encode(), value.encode()) for name, value in bare_headers()]
    headers += [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", str(_RETRY_AFTER).encode()))
    return Answer(status, headers, body)


class Bridge:
    """An ASGI application that wraps a WSGI application."""

    def __init__(self, app: WSGIApplication) -> None:
        self._pools = {kind.name: Pool(app, kind) for kind in KINDS}
        self.leaving = threading.Event()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        environ = environ_of(scope)
        pool = self._pools[kind_of(environ["PATH_INFO"]).name]
        environ[LEAVING] = self.leaving
        job = None
        try:
            early = await self._receive(environ, pool, receive)
            if early is None:
                answer, job = await pool.call(environ, send)
            else:
                answer = early
        except Busy:
            pool.tell("too many requests at once: answering 503")
            answer = refusal(503, environ)
        except ConnectionError:
            return
        if environ["wsgi.input"] is None:  # a part of the body was not read, so the connection cannot be reused
            answer.headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if answer.body is not None:
            await send({"type": "http.response.body", "body": answer.body})
        elif job is not None:
            await _follow(job, receive)

    def finish(self) -> None:
        """Do what is left to be done after answers (messages to workers, log lines), before the process ends."""
        for pool in self._pools.values():
            pool.run_afterwards()

    async def _receive(self, environ: dict[str, Any], pool: Pool, receive: Receive) -> Answer | None:
        """Read the body into ``wsgi.input``. Returns an answer if the request ends before its body has arrived.

        Raises Busy, and ConnectionError if the client has disconnected.
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
            # Slow or large: authenticate by the headers alone before reading more.
            checked = Admission()
            answer, _ = await pool.call(
                environ | {"wsgi.input": io.BytesIO(), "CONTENT_LENGTH": "0", ADMISSION: checked}
            )
            if (limit := checked.allowed) is None:
                return answer
            if announced > limit:
                pool.tell(_TOO_LARGE)
                return refusal(413, environ)
            most = limit if chunked else announced
            full = pool.large_bodies >= _LARGE_BODIES or pool.large_bytes + most > _LARGE_BYTES
            if full and most > EARLY_BODY:
                raise Busy
            pool.large_bodies += 1
            pool.large_bytes += most
            try:
                await body.more(limit)
            finally:
                pool.large_bodies -= 1
                pool.large_bytes -= most
            if not body.complete and len(body.data) > limit:
                pool.tell(_TOO_LARGE)
                return refusal(413, environ)
            if not body.complete:
                return refusal(408, environ)
        environ["wsgi.input"] = io.BytesIO(body.data)
        environ["CONTENT_LENGTH"] = str(len(body.data))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        return None


class _Body:
    """A body that is being received."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._began = receive, time.monotonic()
        self.data = bytearray()
        self.complete = False

    async def more(self, limit: int, seconds: float | None = None) -> None:
        """Read to the end, or until ``limit`` bytes are exceeded or the time is over: ``seconds``, or by the minimum
        rate.

        Raises ConnectionError if the client has disconnected.
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
    """Wait until a stream has ended or its reader has left; the writing thread is then informed."""
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
    """The WSGI environment of a request (PEP 3333). ``wsgi.input`` None: the body has not been read.

    Headers with an underscore are dropped, because ``X_Forwarded_For`` would be mapped to the same key as
    ``X-Forwarded-For``.
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
    if certificate := scope.get("extensions", {}).get(CLIENT_CERTIFICATE):
        environ[CLIENT_CERTIFICATE] = certificate
    for name, value in scope["headers"]:
        if b"_" in name:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}" if key in environ else text
    return environ
