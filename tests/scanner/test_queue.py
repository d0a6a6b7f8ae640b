"""The queue's sending end: a broker that is away holds nobody up and raises nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from scanner.config import Secret, Settings
from scanner.model.scan import Lane
from scanner.queue import enqueue, make_app, reachable


class Silent:
    """A server that takes connections and never says a word. It counts them."""

    def __init__(self) -> None:
        self.taken: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                self.taken.append(self._server.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._server.close()
        for connection in self.taken:
            connection.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


def test_after_a_lost_nudge_none_is_tried_for_a_moment(silent: Silent) -> None:
    """A webhook that tells of a hundred images must not wait a hundred times for a broker that hangs."""
    app = make_app(Settings(), f"redis://127.0.0.1:{silent.port}/0")
    assert [enqueue(app, "id", Lane.PUSH) for _ in range(100)] == [False] * 100
    assert len(silent.taken) <= 2


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_not_there_is_not_reachable(scheme: str) -> None:
    app = make_app(Settings(), f"{scheme}://127.0.0.1:1//")
    assert not reachable(app)
    assert not enqueue(app, "id", Lane.GATE)


def test_without_a_broker_none_is_missing() -> None:
    app = make_app(Settings())
    assert reachable(app)
    assert not enqueue(app, "id", Lane.GATE)


def test_messages_are_hints_and_nothing_waits_for_them() -> None:
    """Reliability 1.2.8: acknowledged early, no results, JSON only, one at a time, every lane a queue."""
    conf = make_app(Settings(broker_url=Secret("amqp://broker//"))).conf
    assert (conf.task_acks_late, conf.task_ignore_result, conf.accept_content) == (False, True, ["json"])
    assert conf.worker_prefetch_multiplier == 1
    assert conf.result_backend is None
    assert {q.name for q in conf.task_queues} == {lane.value for lane in Lane}
    assert {q.queue_arguments["x-queue-type"] for q in conf.task_queues} == {"quorum"}
