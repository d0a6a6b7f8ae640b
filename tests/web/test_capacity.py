"""The way from the event loop to a thread: kinds of routes, bodies, refusals, and the environment that the
application sees.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import orjson
import pytest
from flask_openapi3.openapi import OpenAPI

from web import capacity
from web.capacity import ADMISSION, FAILURE, LATER, Bridge, Kind, environ_of, kind_of
from web.security import Later

T = TypeVar("T")
App = Callable[[dict[str, Any], Any], Iterable[bytes]]


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` in a thread of its own: in the main thread the browser's tests leave a loop that runs."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def scope(method: str = "GET", path: str = "/overview", headers: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "http_version": "1.1",
        "server": ("127.0.0.1", 8080),
        "client": ("192.0.2.1", 1234),
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }


class Call:
    """One request.

    ``pieces`` of its body come as fast as they are read; without ``complete``, nothing comes after them.
    """

    def __init__(self, *pieces: bytes, complete: bool = True) -> None:
        self._pieces, self._complete = list(pieces), complete
        self.status, self.headers, self.body, self.ended = 0, {}, b"", False

    async def receive(self) -> dict[str, Any]:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or not self._complete}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]
            self.ended = not message.get("more_body", False)


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Says what it read; admits whoever has a token, and nobody else, to a body that is late or long."""
    if asked := environ.get(ADMISSION):
        if environ.get("HTTP_AUTHORIZATION") == "Bearer good":
            asked.allowed = 1 << 20
            start_response("204 No Content", [])
            return [b""]
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return [b""]
    body = environ["wsgi.input"].read()
    text = orjson.dumps({"read": len(body), "length": environ.get("CONTENT_LENGTH", "")})
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]


def run(
    app: App, call: Call, *, method: str = "POST", path: str = "/api/v1/scans", headers: Sequence[tuple[str, str]] = ()
) -> Call:
    run_apart(Bridge(app)(scope(method, path, headers), call.receive, call.send))
    return call


def test_every_route_is_of_a_kind_and_the_gate_shares_its_threads_with_no_page(app: OpenAPI) -> None:
    kinds: dict[str, set[str]] = {}
    for rule in app.url_map.iter_rules():
        kinds.setdefault(kind_of(re.sub("<[^>]+>", "x", rule.rule)).name, set()).add(rule.rule)
    assert kinds["gate"] >= {"/api/v1/gate"}
    assert all(rule.startswith(("/api/v1/gate", "/adapters/")) for rule in kinds["gate"])
    assert kinds["health"] == {"/healthz"}
    assert all(rule.startswith("/webhooks/") for rule in kinds["webhooks"])
    assert kinds["events"] == {"/api/v1/scans/<uuid:scan_id>/events"}
    assert kinds["exports"] == {"/api/v1/audit-log/export"}
    assert "/overview" in kinds["pages"]
    assert not any(rule.startswith("/api/") for rule in kinds["pages"])


@pytest.mark.parametrize(("announced", "status"), [(70_000, 200), (1 << 20, 200), ((1 << 20) + 1, 413)])
def test_a_long_body_is_read_for_those_whom_the_headers_let_in(
    announced: int, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = [b"a" * 50_000] * (announced // 50_000) + [b"a" * (announced % 50_000)]
    call = Call(*pieces)
    run(echo, call, headers=[("Content-Length", str(announced)), ("Authorization", "Bearer good")])
    assert call.status == status
    if status == 200:
        assert orjson.loads(call.body) == {"read": announced, "length": str(announced)}
    else:
        assert orjson.loads(call.body)["reason"] == "too_large"
        (record,) = caplog.records
        assert "larger than its limit" in record.message


@pytest.mark.parametrize(
    "header", [("Content-Length", "70000"), ("Transfer-Encoding", "chunked")], ids=["announced", "without a length"]
)
def test_long_bodies_share_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch, header: tuple[str, str]) -> None:
    monkeypatch.setattr(capacity, "_LARGE_BYTES", 69_999)
    pieces = [b"a" * 65_537, b"a" * 4_463, b""]  # more than is read of a body before its headers are looked at
    call = Call(*pieces)
    run(echo, call, headers=[header, ("Authorization", "Bearer good")])
    assert call.status == 503
    monkeypatch.setattr(capacity, "_LARGE_BYTES", 1 << 20)
    call = Call(*pieces)
    run(echo, call, headers=[header, ("Authorization", "Bearer good")])
    assert call.status == 200


@pytest.mark.parametrize(
    "headers",
    [[("Content-Length", "70000")], [("Content-Length", "10"), ("Expect", "100-continue")]],
    ids=["long", "waits for 100 Continue"],
)
def test_nothing_of_a_strangers_body_is_read(headers: list[tuple[str, str]]) -> None:
    call = Call(b"never read")
    run(echo, call, headers=headers)
    assert call.status == 401
    assert call._pieces == [b"never read"]
    assert call.headers[b"connection"] == b"close"


def test_a_body_without_a_length_is_bounded() -> None:
    endless = Call(*[b"a" * 65_536] * 40)
    run(echo, endless, headers=[("Transfer-Encoding", "chunked"), ("Authorization", "Bearer good")])
    assert endless.status == 413
    assert len(endless._pieces) > 20
    whole = Call(b"abc", b"def")
    run(echo, whole, headers=[("Transfer-Encoding", "chunked")])
    assert orjson.loads(whole.body) == {"read": 6, "length": "6"}


@pytest.mark.parametrize(("token", "status"), [("good", 408), ("bad", 401)])
def test_a_body_that_stops_ends_the_request(monkeypatch: pytest.MonkeyPatch, token: str, status: int) -> None:
    monkeypatch.setattr(capacity, "_EARLY_SECONDS", 0.1)
    monkeypatch.setattr(capacity, "_BODY_SECONDS", 0.3)
    call = Call(b"abc", complete=False)
    run(echo, call, headers=[("Content-Length", "100"), ("Authorization", f"Bearer {token}")])
    assert call.status == status


def test_a_full_queue_is_told_at_once_and_hinders_no_other_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Kind("pages", 1, 1, 5)
    monkeypatch.setattr(capacity, "KINDS", (*(k for k in capacity.KINDS if k.name != "pages"), small))
    free = threading.Event()

    def slow(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/overview":
            free.wait(20)
        return echo(environ, start_response)

    async def all_at_once() -> list[int]:
        bridge, pages = Bridge(slow), [Call() for _ in range(5)]
        running = [asyncio.ensure_future(bridge(scope(), page.receive, page.send)) for page in pages]
        await asyncio.sleep(0.1)
        refused = [page for page in pages if page.status]
        gate = Call()
        await bridge(scope("POST", "/api/v1/gate"), gate.receive, gate.send)
        free.set()
        await asyncio.gather(*running)
        assert all(page.status == 503 and int(page.headers[b"retry-after"]) > 0 for page in refused)
        return [gate.status, len(refused), *(page.status for page in pages if page not in refused)]

    assert run_apart(all_at_once()) == [200, 3, 200, 200]


def test_who_waits_too_long_for_a_thread_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        capacity, "KINDS", (Kind("pages", 1, 9, 0.2), *(k for k in capacity.KINDS if k.name != "pages"))
    )
    free = threading.Event()

    def slow(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        free.wait(20)
        return echo(environ, start_response)

    async def two() -> tuple[int, int]:
        bridge, first, second = Bridge(slow), Call(), Call()
        working = asyncio.ensure_future(bridge(scope(), first.receive, first.send))
        await asyncio.sleep(0.05)
        await bridge(scope(), second.receive, second.send)
        free.set()
        await working
        return first.status, second.status

    assert run_apart(two()) == (200, 503)


def test_a_stream_is_sent_piece_by_piece_and_ends_with_its_reader() -> None:
    closed = threading.Event()

    def stream(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])

        def pieces() -> Iterable[bytes]:
            try:
                for number in range(3 if environ["PATH_INFO"] == "/three" else 10**9):
                    yield b"%d," % number
            finally:
                closed.set()

        return pieces()

    three = run(stream, Call(b""), method="GET", path="/three")
    assert (three.body, three.ended) == (b"0,1,2,", True)
    closed.clear()

    class Leaves(Call):
        async def receive(self) -> dict[str, Any]:
            while len(self.body) < 10:
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

    run(stream, Leaves(), method="GET", path="/endless")
    assert closed.wait(10)


def test_what_breaks_in_a_thread_is_answered() -> None:
    def broken(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise RuntimeError("a secret")

    call = run(broken, Call(), method="GET", path="/overview", headers=[("Accept", "text/html")])
    assert call.status == 500
    assert call.headers[b"content-type"].startswith(b"text/html")
    assert b"secret" not in call.body


def late(outcome: bytes | Exception | None) -> tuple[App, list[str]]:
    """An application that answers from another thread, and what it did."""
    done: list[str] = []

    def begin(answer: Callable[[bytes], None], again: Callable[[Exception | None], None]) -> None:
        assert "answered first" not in done
        call = partial(answer, outcome) if isinstance(outcome, bytes) else partial(again, outcome)
        threading.Thread(target=call).start()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        done.append(environ["wsgi.input"].read().decode())
        if pending := environ[LATER]:
            pending.begin = begin
            pending.then.append(lambda: done.append("afterwards"))
            start_response("202 Accepted", [("Content-Length", "0"), ("X-A", "1")])
            return [b""]
        error = environ[FAILURE]
        text = str(error).encode()
        start_response("503 Service Unavailable" if error else "202 Accepted", [("Content-Length", str(len(text)))])
        return [text]

    return app, done


def test_an_answer_may_come_later_from_another_thread() -> None:
    app, done = late(b'{"a":1}')
    call = run(app, Call(b"body"), path="/webhooks/a", headers=[("Content-Length", "4")])
    assert (call.status, call.body) == (202, b'{"a":1}')
    assert (call.headers[b"content-length"], call.headers[b"x-a"]) == (b"7", b"1")
    ends = time.monotonic() + 60
    while done != ["body", "afterwards"]:
        assert time.monotonic() < ends, done
        time.sleep(0.01)


@pytest.mark.parametrize(("failure", "status", "text"), [(None, 202, b"None"), (OSError("no disk"), 503, b"no disk")])
def test_a_request_that_cannot_be_answered_later_is_answered_again(
    failure: Exception | None, status: int, text: bytes
) -> None:
    """With its whole body, and what was to be done after the first answer is not done."""
    app, done = late(failure)
    call = run(app, Call(b"body"), path="/webhooks/a", headers=[("Content-Length", "4")])
    assert (call.status, call.body, done) == (status, text, ["body", "body"])


def test_requests_that_wait_for_their_answer_occupy_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Kind("webhooks", 1, 50, 60)
    monkeypatch.setattr(capacity, "KINDS", (*(k for k in capacity.KINDS if k.name != "webhooks"), one))
    waiting: list[Callable[[bytes], None]] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[LATER].begin = lambda answer, again: waiting.append(answer)
        start_response("202 Accepted", [("Content-Length", "0")])
        return [b""]

    async def many() -> list[int]:
        bridge, calls = Bridge(app), [Call() for _ in range(20)]
        running = [
            asyncio.ensure_future(bridge(scope("POST", "/webhooks/a"), call.receive, call.send)) for call in calls
        ]
        async with asyncio.timeout(60):
            while len(waiting) < len(calls):
                await asyncio.sleep(0.01)
        for answer in waiting:
            answer(b"")
        await asyncio.gather(*running)
        return [call.status for call in calls]

    assert run_apart(many()) == 20 * [202]


def test_work_that_comes_while_the_last_one_ends_is_done_as_well() -> None:
    """Otherwise the workers would hear of no further delivery, and none would be logged."""
    done: list[str] = []
    pool = capacity.Pool(echo, capacity.WEBHOOKS)

    class Interrupted(deque[Callable[[], object]]):
        def extend(self, works: Iterable[Callable[[], object]]) -> None:
            runner.start()  # the thread that was woken for the first one
            runner.join(0.2)
            super().extend(works)

    async def answer_second() -> None:
        loop = asyncio.get_running_loop()
        later = Later(lambda: 0, lambda answer, again: answer(b""), [lambda: done.append("second")])
        job = capacity._Job({LATER: later}, loop.create_future(), loop, loop.create_future())
        pool._answer_later(job, capacity.Answer(202, [], None))

    pool._afterwards = Interrupted([lambda: done.append("first")])
    runner = threading.Thread(target=pool.run_afterwards)
    run_apart(answer_second())
    runner.join(60)
    assert done == ["first", "second"]


def test_an_application_that_fails_after_its_view_is_believed() -> None:
    begun: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[LATER].begin = lambda answer, again: begun.append("begun")
        start_response("500 Internal Server Error", [("Content-Length", "3")])
        return [b"bad"]

    call = run(app, Call(), path="/webhooks/a")
    assert (call.status, call.body, begun) == (500, b"bad", [])


def test_a_process_that_ends_does_what_is_left() -> None:
    done: list[str] = []
    bridge = Bridge(echo)
    bridge._pools["webhooks"]._afterwards.append(lambda: done.append("told"))
    bridge.finish()
    assert done == ["told"]


def test_a_request_whose_later_answer_cannot_begin_is_answered_and_the_thread_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Kind("webhooks", 1, 50, 60)
    monkeypatch.setattr(capacity, "KINDS", (*(k for k in capacity.KINDS if k.name != "webhooks"), one))

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[LATER].begin = lambda answer, again: {}["no thread left"]
        start_response("202 Accepted", [("Content-Length", "0")])
        return [b""]

    async def twice() -> list[int]:
        bridge, calls = Bridge(app), [Call(), Call()]
        async with asyncio.timeout(60):
            for call in calls:
                await bridge(scope("POST", "/webhooks/a"), call.receive, call.send)
        return [call.status for call in calls]

    assert run_apart(twice()) == [500, 500]


def test_a_header_with_an_underscore_is_nobodys() -> None:
    headers = [("X_Forwarded_For", "1.1.1.1"), ("X-A", "1"), ("X-A", "2"), ("Cookie", "a=1"), ("Cookie", "b=2")]
    environ = environ_of(scope(path="/a%20b%FF", headers=headers))
    assert "HTTP_X_FORWARDED_FOR" not in environ
    assert environ["HTTP_X_A"] == "1,2"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["PATH_INFO"] == "/a b\xff"
