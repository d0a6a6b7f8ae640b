"""The gate's answers while a burst of notification events is routed and delivered, as a ratio to its answers before.

    python -m benchmarks.notifications [--events 10000] [--seconds 5] [--rate 100] [--database postgresql]

A worker with the lane ``notify`` delivers to a webhook receiver on this machine: each event is of another subject, so
each becomes a message. A client asks the gate at a fixed rate, because one that asks as fast as it can measures only
which process gets the processor. The receiver is a process of its own: one that shared the client's interpreter would
delay the reading of answers. Two phases are compared: the worker is idle; and the burst was written in one transaction,
and is delivered. The server's CPU time per request shows what other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import databases
from benchmarks.gate import answer, cpu_seconds, http, prepare, processes, served

GOAL = 1.2  # the median of an answer during the burst, to the median before
ROOT = Path(__file__).parents[1]


class Receiver:
    """Takes every message, in a process of its own."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._taken = spawn.Value("i", 0)
        ours, its = spawn.Pipe()
        self._process = spawn.Process(target=_receive, args=(self._taken, its), daemon=True)
        self._process.start()
        self.port: int = ours.recv()

    @property
    def taken(self) -> int:
        return int(self._taken.value)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _receive(taken: Any, started: Any) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with taken.get_lock():
                taken.value += 1
            self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    started.send(server.server_address[1])
    server.serve_forever()


@dataclass(frozen=True)
class Phase:
    """Seconds of each answer, and the server's CPU seconds per request."""

    times: list[float]
    cpu: float

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def late(self) -> float:
        return sorted(self.times)[int(len(self.times) * 0.99)]


def ask(port: int, server: int, request: bytes, seconds: float, rate: float) -> Phase:
    """Ask the gate at a fixed rate. A late answer delays the next question: it is not asked twice at once."""
    pids, times = processes(server), []
    before, began = cpu_seconds(pids), time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (now := time.perf_counter()) - began < seconds:
            connection.sendall(request)
            answer(connection)
            times.append(time.perf_counter() - now)
            time.sleep(max(0.0, began + len(times) / rate - time.perf_counter()))
    return Phase(times, (cpu_seconds(pids) - before) / len(times))


def subscribe(home: Path, database_url: str, port: int) -> None:
    """A webhook channel that is subscribed to new vulnerabilities."""
    from scanner import config
    from scanner.model.actor import COMMAND_LINE
    from scanner.model.notification import EventKind
    from scanner.services import notifications
    from scanner.store.session import Database

    settings = config.Settings(home=home, database_url=config.Secret(database_url))
    database = Database(settings.database)
    created = notifications.create(
        database,
        settings,
        config.secret_key(settings),
        COMMAND_LINE,
        name="benchmark",
        format_="webhook",
        values={"url": f"http://127.0.0.1:{port}/", "secret": "whsec_" + "A" * 32},
    )
    with database.session() as session:
        wanted = notifications.WantedSubscription(
            created.id, kinds=(EventKind.VULNERABILITY_NEW.value,), group_seconds=0
        )
        notifications.subscribe(session, COMMAND_LINE, wanted)
    database.engine.dispose()


def burst(home: Path, database_url: str, number: int) -> None:
    """Write the events in one transaction, as an update of the advisories does."""
    from scanner import config
    from scanner.model.notification import Event, EventKind
    from scanner.store import outbox
    from scanner.store.session import Database

    database = Database(config.Settings(home=home, database_url=config.Secret(database_url)).database)
    with database.session() as session:
        names = (f"CVE-2026-{one:06}" for one in range(number))
        outbox.add(session, (Event(EventKind.VULNERABILITY_NEW, name, f"{name} in openssl") for name in names))
    database.engine.dispose()


def start_worker(home: Path, database_url: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"DOCKWARDEN_HOME": str(home), "DOCKWARDEN_LOG_LEVEL": "ERROR"}
    if database_url:
        environment["DOCKWARDEN_DATABASE_URL"] = database_url
    command = [sys.executable, "-m", "scanner.cli", "worker", "--lanes", "notify"]
    return subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)


def measure(asked: argparse.Namespace, home: Path, port: int, server: int, token: str, reference: str) -> None:
    receiver = Receiver()
    subscribe(home, asked.database, receiver.port)
    request = http("POST", "/api/v1/gate", token, json.dumps({"image": reference}).encode())
    worker = start_worker(home, asked.database)
    try:
        burst(home, asked.database, 1)
        ends = time.monotonic() + 120
        while not receiver.taken:
            if time.monotonic() > ends or worker.poll() is not None:
                raise SystemExit("the worker delivers nothing")
            time.sleep(0.1)
        ask(port, server, request, 1, asked.rate)  # warm
        before = ask(port, server, request, asked.seconds, asked.rate)
        taken, began = receiver.taken, time.monotonic()
        burst(home, asked.database, asked.events)
        during = ask(port, server, request, asked.seconds, asked.rate)
        delivered, took = receiver.taken - taken, time.monotonic() - began
    finally:
        os.killpg(worker.pid, 9)
        worker.wait()
        receiver.stop()
    for name, phase in (("before", before), ("burst", during)):
        print(
            f"{name:8}{phase.median * 1000:7.2f} ms median {phase.late * 1000:7.2f} ms p99 "
            f"{phase.cpu * 1e6:6.0f} us CPU of the server per request"
        )
    print(f"{delivered} of {asked.events} events delivered in {took:.1f} s")
    print(
        f"gate during the burst: median {during.median / before.median:.2f}, CPU {during.cpu / before.cpu:.2f} of "
        f"before; goal {GOAL} or less; load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=100, help="questions to the gate per second")
    databases.add_option(parser)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        token, references = prepare(home, asked.database)
        with served(home, asked.database) as (port, process):
            measure(asked, home, port, process, token, references["gate"])


if __name__ == "__main__":
    main()
