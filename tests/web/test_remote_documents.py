"""A slow server holds the thread that reads from it, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from scanner.errors import RefusedError, RemoteError
from web.capacity import PAGES, PROVIDER, SIGN_IN, kind_of
from web.remote_documents import RemoteDocuments


class Server:
    """Answers when it is released. ``error`` is what it raises instead."""

    def __init__(self) -> None:
        self.released, self.asked = threading.Event(), threading.Event()
        self.answers, self.error = 0, None

    error: Exception | None

    def __call__(self) -> str:
        self.asked.set()
        assert self.released.wait(60)
        self.answers += 1
        if self.error:
            raise self.error
        return f"answer {self.answers}"


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


Kept = Callable[..., RemoteDocuments[str]]


@pytest.fixture
def kept(now: list[float]) -> Kept:
    def make(at_once: int = 1, wait_seconds: float = 60.0) -> RemoteDocuments[str]:
        return RemoteDocuments(at_once, clock=lambda: now[0], wait_seconds=wait_seconds)

    return make


def test_many_threads_ask_for_one_answer(kept: Kept, server: Server) -> None:
    documents = kept()
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(documents.get, "a", server, 60) for _ in range(8)]
        assert server.asked.wait(60)
        server.released.set()
        assert {each.result(60) for each in asked} == {"answer 1"}
    assert server.answers == 1


def test_while_one_thread_waits_the_others_are_refused_or_get_the_former_answer(
    kept: Kept, server: Server, now: list[float]
) -> None:
    documents = kept(wait_seconds=0)
    server.released.set()
    assert documents.get("a", server, 60) == "answer 1"
    server.released.clear()
    server.asked.clear()
    now[0] += 61
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(documents.get, "a", server, 60)
        assert server.asked.wait(60)
        assert documents.get("a", server, 60, stale=100) == "answer 1"
        for key, stale in (("a", 0), ("a", 0.5), ("b", 100)):
            with pytest.raises(RemoteError, match="slow to answer"):
                documents.get(key, server, 60, stale=stale)
        server.released.set()
        assert first.result(60) == "answer 2"
    assert documents.get("a", server, 60) == "answer 2"


def test_a_failure_is_remembered_for_a_moment(kept: Kept, server: Server, now: list[float]) -> None:
    documents = kept()
    server.released.set()
    assert documents.get("a", server, 60) == "answer 1"
    server.error = RemoteError("it is away", reason="oidc_unavailable", hint="tell an administrator")
    now[0] += 61
    for _ in range(3):
        with pytest.raises(RemoteError, match="it is away") as raised:
            documents.get("a", server, 60)
        assert (raised.value.reason, raised.value.hint) == ("oidc_unavailable", "tell an administrator")
        assert documents.get("a", server, 60, stale=60) == "answer 1", "the former one may still be used"
    assert server.answers == 2
    server.error = None
    now[0] += 6
    assert documents.get("a", server, 60) == "answer 3"


def test_another_error_is_not_remembered_and_holds_nobody_up(kept: Kept, server: Server) -> None:
    documents = kept()
    server.released.set()
    server.error = RefusedError("not this one")
    for number in (1, 2):
        with pytest.raises(RefusedError):
            documents.get("a", server, 60)
        assert server.answers == number


def test_without_an_age_it_is_asked_each_time(kept: Kept, server: Server) -> None:
    documents = kept()
    server.released.set()
    assert [documents.get("a", server, 0) for _ in range(2)] == ["answer 1", "answer 2"]
    server.error = RemoteError("it is away")
    for number in (3, 4):
        with pytest.raises(RemoteError):
            documents.get("a", server, 0)
        assert server.answers == number


def test_few_documents_are_kept(kept: Kept, server: Server) -> None:
    documents = kept()
    server.released.set()
    for number in range(100):
        documents.get(str(number), server, 60)
    documents.get("99", server, 60)
    assert server.answers == 100
    documents.get("0", server, 60)
    assert server.answers == 101


@pytest.mark.parametrize("path", ["/sign-in/oidc", "/sign-in/oidc/callback"])
def test_sign_ins_that_wait_for_a_provider_have_threads_of_their_own(path: str) -> None:
    assert kind_of(path) is PROVIDER
    assert kind_of("/sign-in") is SIGN_IN
    assert kind_of("/sign-inside") in (SIGN_IN, PAGES)
