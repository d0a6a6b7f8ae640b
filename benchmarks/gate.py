"""Requests per second of an already-decided gate call, as a ratio to a bare Flask JSON route on the same server, in
the same run.

    python benchmarks/gate.py [--rounds 5] [--seconds 3] [--database postgresql]

Our web server answers both: ``/hello`` is a Flask app of one route, ``/api/v1/gate`` is ours with token, database
and headers. Rounds alternate and medians are told; the server's CPU time per request is told beside, because other
work on the machine slows the wall clock and not it. Server and client are kept on different cores where there are
several.
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
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import databases

CONNECTIONS = 4
GOAL = 0.4


def application() -> Any:
    """What the server answers with: both apps behind one dispatcher."""
    from flask import Flask, jsonify
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    from web import create_app

    hello = Flask("hello")
    hello.add_url_rule("/", view_func=lambda: jsonify(verdict="allow", digest="sha256:" + "0" * 64))
    return DispatcherMiddleware(create_app(), {"/hello": hello.wsgi_app})


def prepare(home: Path, database_url: str) -> tuple[str, dict[str, str]]:
    """A database with an image that is allowed and one that hundreds of reasons deny.

    Returns a gate token and their references.
    """
    from scanner import config
    from scanner.store import accounts
    from scanner.store.session import Database
    from tests.scanner.store import factories as make

    settings = config.Settings(home=home, database_url=config.Secret(database_url))
    database = Database(settings.database)
    database.upgrade()
    with database.session() as session:
        token = accounts.create_token(session, "benchmark", ["gate"], config.secret_key(settings))[1]
        references = {
            "gate": decided(session, make.report("small", packages=[make.package(1)])),
            "gate, long answer": decided(session, make.large_report()),
        }
    database.engine.dispose()
    return token.reveal(), references


def decided(session: Any, found: Any) -> str:
    """Record evidence and decisions as a worker does. Returns the image's reference."""
    from scanner import catalog
    from scanner.model.scan import Lane, ScanRequest
    from scanner.policy.evaluate import evidence_digest
    from scanner.services import decisions
    from scanner.store import images, scans

    reference = f"{found.repository}@{found.digest}"
    scans.request(session, ScanRequest(reference, lane=Lane.GATE))
    claim = scans.claim(session, "benchmark", ["gate"], 60)
    assert claim
    scans.settle(session, claim, found.digest, "benchmark")
    made = decisions.decide_all(session, found, catalog.known_names(), catalog.remedies())
    images.record(session, claim, found, evidence_digest(found), made)
    return reference


def serve(home: Path, database_url: str, port: int) -> subprocess.Popen[bytes]:
    """Our web server, as `dockwarden serve` runs it."""
    environment = os.environ | {
        "DOCKWARDEN_HOME": str(home),
        "DOCKWARDEN_RATE_LIMITS": "false",
        "DOCKWARDEN_LOG_LEVEL": "WARNING",
    }
    if database_url:
        environment["DOCKWARDEN_DATABASE_URL"] = database_url
    command = [sys.executable, "-m", "benchmarks.gate", "--serve", str(port)]
    server = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[1], start_new_session=True)
    for _ in range(200):
        if server.poll() is not None:
            raise SystemExit("the server did not start")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    return server


@contextmanager
def served(home: Path, database_url: str) -> Iterator[tuple[int, int]]:
    """Run our web server. Yields its port and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = serve(home, database_url, port)
    try:
        yield port, server.pid
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def processes(root: int) -> list[int]:
    """A process and its descendants."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(root)], capture_output=True, text=True, check=False
    ).stdout
    return [root, *(pid for child in children.split() for pid in processes(int(child)))]


def pin(pids: list[int], core: int) -> None:
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {core})


def cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def load(port: int, request: bytes, seconds: float, core: int | None) -> int:
    """Answers received in ``seconds`` over keep-alive connections. Every one must be 200. In a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_load, (port, request, seconds, core))


def _load(port: int, request: bytes, seconds: float, core: int | None) -> int:
    if core is not None:
        os.sched_setaffinity(0, {core})
    counts = [0] * CONNECTIONS
    ends = time.monotonic() + seconds

    def run(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.monotonic() < ends:
                connection.sendall(request)
                answer(connection)
                counts[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def answer(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not an answer: {head[:200]!r} {body[:300]!r}")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return body


def http(method: str, path: str, token: str = "", body: bytes = b"") -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
    ]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    databases.add_option(parser)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        from web import server

        server.serve(application(), socket.create_server(("127.0.0.1", asked.serve)))
        return
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        token, references = prepare(home, asked.database)
        with served(home, asked.database) as (port, process):
            measure(asked.rounds, asked.seconds, port, process, token, references)


def measure(rounds: int, seconds: float, port: int, server: int, token: str, references: dict[str, str]) -> None:
    pids = processes(server)
    client_core = None
    if (os.cpu_count() or 1) > 1:
        pin(pids, 0)
        client_core = 1
    requests = {"hello": http("GET", "/hello/")}
    for name, reference in references.items():
        requests[name] = http("POST", "/api/v1/gate", token, json.dumps({"image": reference}).encode())
    rates: dict[str, list[float]] = {name: [] for name in requests}
    costs: dict[str, list[float]] = {name: [] for name in requests}
    for request in requests.values():
        load(port, request, 1, client_core)  # warm
    for _ in range(rounds):
        for name, request in requests.items():
            before = cpu_seconds(pids)
            answered = load(port, request, seconds, client_core)
            rates[name].append(answered / seconds)
            costs[name].append((cpu_seconds(pids) - before) / answered * 1e6)
    rate = {name: statistics.median(values) for name, values in rates.items()}
    cost = {name: statistics.median(values) for name, values in costs.items()}
    for name in requests:
        line = f"{name:18}{rate[name]:7.0f} requests/s {cost[name]:6.0f} us CPU of the server per request"
        if name != "hello":
            line += f"   {rate[name] / rate['hello']:.2f} of hello's rate, {cost['hello'] / cost[name]:.2f} by CPU"
        print(line)
    print(f"goal: the gate at {GOAL} of hello's rate or more")
    print(f"load: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
