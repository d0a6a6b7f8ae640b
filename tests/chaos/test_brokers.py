"""The queue's messages may be lost, repeated or forged; the broker may die (reliability R1, R2, R3, R5, I14)."""

from __future__ import annotations

import base64
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from scanner.config import Settings
from scanner.model.scan import Lane
from scanner.queue import enqueue, make_app, reachable
from scanner.store.session import Database
from tests.chaos import harness
from tests.databases import migrated_url
from tests.servers import real_clock


class Redis:
    """A Redis without persistence on a unix socket: whatever it forgets, it forgets."""

    def __init__(self, home: Path) -> None:
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            pytest.skip("no redis-server on PATH: apt-get install redis-server")
        self.socket = home / "redis.sock"
        options = f"--port 0 --unixsocket {self.socket} --save --appendonly no --dir {home}"
        self._command = [binary, *options.split(" ")]
        self._command.insert(self._command.index("--save") + 1, "")
        self.start()

    @property
    def url(self) -> str:
        return f"redis+socket://{self.socket}"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def start(self) -> None:
        with real_clock():  # with libfaketime, Redis never listens; the times that it keeps are relative
            self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.client().ping()
            except redis.ConnectionError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("Redis did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Redis]:
    broker = Redis(tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return migrated_url("postgresql", tmp_path)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.engine.dispose()


@pytest.fixture
def workers(database_url: str, tmp_path: Path, broker: Redis) -> Iterator[harness.Workers]:
    workers = harness.Workers(database_url, tmp_path, slots=2, broker=broker.url)
    yield workers
    workers.stop()


def kick(broker: Redis, asked: dict[str, str]) -> list[bool]:
    app = make_app(Settings(), broker.url)
    try:
        return [enqueue(app, scan_id, Lane.PUSH) for scan_id in asked.values()]
    finally:
        app.close()


def drained(broker: Redis) -> bool:
    return all(broker.client().llen(lane) == 0 for lane in Lane)


def targets(prefix: str, count: int) -> list[str]:
    return [f"h.io/{prefix}{number}:1" for number in range(count)]


def test_a_message_is_an_id_and_nothing_else(broker: Redis) -> None:
    """R5, I14: no secret, no address, nothing to forge."""
    kick(broker, {"x": "the-id"})
    (raw,) = broker.client().lrange("push", 0, -1)
    message = json.loads(raw)
    arguments, keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, keywords) == (["the-id"], {})


def test_everything_the_broker_held_is_forgotten(database: Database, workers: harness.Workers, broker: Redis) -> None:
    """R2: FLUSHALL while scans are queued."""
    asked = harness.ask(database, targets("a", 40))
    kick(broker, asked)
    for _ in range(4):
        broker.client().flushall()
        time.sleep(0.2)
    workers.until(harness.over(database))
    harness.judge(database, list(asked.values()))
    assert set(harness.states(database)) == {"done"}
    assert workers.deaths == 0


def test_the_broker_dies_and_comes_back(database: Database, workers: harness.Workers, broker: Redis) -> None:
    """R1, R3: work goes on while it is away, and messages are taken again when it is back."""
    workers.until(lambda: reachable(make_app(Settings(), broker.url)))
    broker.kill()
    away = harness.ask(database, targets("away", 20))
    assert kick(broker, away) == [False] * 20
    workers.until(harness.over(database))
    broker.start()
    back = harness.ask(database, targets("back", 10))
    assert kick(broker, back) == [True] * 10
    workers.until(harness.over(database))
    workers.until(lambda: drained(broker))
    harness.judge(database, [*away.values(), *back.values()])
    assert workers.deaths == 0


def forged() -> list[tuple[str, str, str]]:
    """Name of the task, content type, body."""

    def body(arguments: object) -> str:
        return json.dumps([arguments, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('a forged message was executed')",))

    return [
        ("dockwarden.kick", "application/json", body(["no-such-scan"])),
        ("dockwarden.kick", "application/json", body([-1])),
        ("dockwarden.kick", "application/json", body([None, "more", 3])),
        ("dockwarden.kick", "application/json", body(["x" * 1_000_000])),
        ("dockwarden.kick", "application/json", body([{"scan": "'; DROP TABLE scan; --"}])),
        ("dockwarden.kick", "application/json", "not json"),
        ("os.system", "application/json", body(["true"])),
        (
            "dockwarden.kick",
            "application/x-python-serialize",
            base64.b64encode(pickle.dumps(([Evil()], {}, {}))).decode(),
        ),
    ]


def test_forged_messages_do_nothing(database: Database, workers: harness.Workers, broker: Redis) -> None:
    """R5: other tasks, other formats, pickles, too large, not for us. The worker lives and takes the next message."""
    for name, kind, text in forged():
        number = str(uuid.uuid4())
        message = {
            "body": text if "python" in kind else base64.b64encode(text.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": kind,
            "headers": {
                "lang": "py",
                "task": name,
                "id": number,
                "root_id": number,
                "parent_id": None,
                "group": None,
                "retries": 0,
            },
            "properties": {
                "correlation_id": number,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "dockwarden", "routing_key": "push"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": number,
            },
        }
        broker.client().lpush("push", json.dumps(message))
    workers.until(lambda: drained(broker))
    asked = harness.ask(database, targets("after", 5))
    kick(broker, asked)
    workers.until(lambda: harness.over(database)() and drained(broker))
    harness.judge(database, list(asked.values()))
    assert workers.deaths == 0


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A RabbitMQ node of its own: own name, own ports, own name server, own state.

    It takes some ten seconds to start.
    """
    # Not Debian's wrapper on PATH: that changes to another user, who cannot write here.
    binary = shutil.which("rabbitmq-server", path=f"/usr/lib/rabbitmq/bin{os.pathsep}{os.environ['PATH']}")
    if binary is None:
        pytest.skip("no rabbitmq-server on PATH: apt-get install rabbitmq-server")
    home = tmp_path_factory.mktemp("rabbit")
    port, distribution, names = free_port(), free_port(), free_port()
    (home / "enabled_plugins").write_text("[].")
    environment = {
        **os.environ,
        "HOME": str(home),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP": str(home / "dump"),
        "RABBITMQ_NODENAME": f"dockwarden{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
    }
    with (home / "output").open("wb") as output:
        process = subprocess.Popen(
            [binary],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"amqp://guest:guest@127.0.0.1:{port}//"
    try:
        app = make_app(Settings(), url)
        for _ in range(240):
            if reachable(app):
                break
            assert process.poll() is None, (home / "output").read_text()[-2000:]
            time.sleep(0.25)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # The name server is a daemon that Erlang starts by the way, and it would stay. It refuses to end until it has
        # noticed that its node is gone.
        for _ in range(50):
            said = subprocess.run(["epmd", "-port", str(names), "-kill"], capture_output=True, check=False, timeout=10)
            if b"not allowed" not in said.stdout + said.stderr:
                break
            time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_rabbitmq_with_quorum_queues(rabbit: str, database: Database, database_url: str, tmp_path: Path) -> None:
    """The same on RabbitMQ: messages are taken, and the queues are of the kind that survives a node."""
    workers = harness.Workers(database_url, tmp_path, broker=rabbit)
    try:
        asked = harness.ask(database, targets("rabbit", 5))
        app = make_app(Settings(), rabbit)
        assert [enqueue(app, scan_id, Lane.PUSH) for scan_id in asked.values()] == [True] * 5

        def waiting() -> int:
            with app.connection_for_read() as connection:
                queue = next(q for q in app.conf.task_queues if q.name == "push").bind(connection.default_channel)
                return int(queue.queue_declare(passive=True).message_count)

        workers.until(lambda: harness.over(database)() and waiting() == 0)
        harness.judge(database, list(asked.values()))
        assert workers.deaths == 0
    finally:
        workers.stop()
