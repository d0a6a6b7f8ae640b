"""Deliveries of webhooks accepted per second, as a ratio to an endpoint that only parses them; and what is lost.

    python -m benchmarks.webhooks [--rounds 5] [--seconds 3] [--connections 16] [--lost 20000]
                                  [--database postgresql]

The same server answers all, in turn, on kept-alive connections. ``parse`` and ``accept`` are routes of our application:
both read the body, parse it by the format, and have the same threads and the middleware of every route (headers,
permission table, metrics, log). ``accept`` also authenticates the delivery, and answers after the delivery and its scan
are committed. So each connection waits for the disk, and ``--connections`` says how many deliveries share that wait: a
burst comes from many senders. ``bare`` is ``parse`` in an empty Flask application, to show what the middleware costs.
Medians are told, and the server's CPU time per delivery, because other work on the machine slows the wall clock and not
it.

``--lost``: then so many deliveries are sent while a worker runs that is killed again and again, and every delivery that
was answered 202 must be in the database with its scan.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import databases
from benchmarks.gate import cpu_seconds, pin, processes

GOAL = 0.45
CONNECTIONS = 16
HOST = "127.0.0.1:1"  # a registry that refuses connections at once: scans fail, and none waits
ROOT = Path(__file__).parents[1]
_MARK = "0123456789abcdef"  # is replaced by the number of the delivery


def application() -> Any:
    """Our application with the route that only parses, and the empty one."""
    from flask import Flask, jsonify, request
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    from web import create_app, webhooks
    from web.auth import PUBLIC, permission

    def only_parse() -> Any:
        events = webhooks.formats()["distribution"].parse(request.get_data())
        return jsonify(events=len(events)), 202

    bare = Flask("bare")
    bare.add_url_rule("/", view_func=only_parse, methods=["POST"])
    app = create_app()
    app.add_url_rule("/webhooks/only-parse", view_func=permission(PUBLIC)(only_parse), methods=["POST"])
    return DispatcherMiddleware(app, {"/webhooks/bare": bare.wsgi_app})


def prepare(home: Path, database_url: str) -> str:
    """A database with a registry and its webhook. Returns the webhook's secret."""
    from scanner import config
    from scanner.store import deliveries, registries
    from scanner.store.session import Database

    settings = config.Settings(home=home, database_url=config.Secret(database_url))
    database, key = Database(settings.database), config.secret_key(settings)
    database.upgrade()
    with database.session() as session:
        registry = registries.add(session, HOST, key, insecure=True)
        secret = deliveries.create_hook(session, "benchmark", "distribution", registry.id, key)[1]
    database.engine.dispose()
    return secret.reveal()


def environment(home: Path, database_url: str) -> dict[str, str]:
    own = {
        "DOCKWARDEN_HOME": str(home),
        "DOCKWARDEN_RATE_LIMITS": "false",
        "DOCKWARDEN_LOG_LEVEL": "CRITICAL",
        "DOCKWARDEN_DATABASE_URL": database_url,
    }
    return os.environ | {name: value for name, value in own.items() if value}


def serve(home: Path, database_url: str, port: int) -> subprocess.Popen[bytes]:
    """Our web server, as ``dockwarden serve`` runs it."""
    command = [sys.executable, "-m", "benchmarks.webhooks", "--serve", str(port)]
    server = subprocess.Popen(command, env=environment(home, database_url), cwd=ROOT, start_new_session=True)
    for _ in range(300):
        if server.poll() is not None:
            raise SystemExit("the server did not start")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    return server


def delivery(path: str, secret: str) -> bytes:
    """A request with one push. Each number makes another image and another event."""
    event = {
        "id": f"00000000-0000-0000-0000-{_MARK[:12]}",
        "timestamp": "2026-01-01T00:00:00Z",
        "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "size": 500,
            "digest": "sha256:" + _MARK * 4,
            "repository": "shop/cart",
            "tag": "1",
        },
        "request": {"host": HOST, "method": "PUT", "useragent": "docker/29"},
        "actor": {"name": "ci"},
        "source": {"addr": HOST, "instanceID": "1"},
    }
    body = json.dumps({"events": [event]}).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body)}",
        "Content-Type: application/vnd.docker.distribution.events.v1+json",
        f"Authorization: Bearer {secret}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def load(
    asked: Any, port: int, request: bytes, seconds: float, core: int | None, first: int, most: int = 1 << 60
) -> list[str]:
    """The ids of accepted deliveries, sent over keep-alive connections by a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_load, (port, request, seconds, core, first, most, asked.connections))


def _load(
    port: int, request: bytes, seconds: float, core: int | None, first: int, most: int, connections: int
) -> list[str]:
    if core is not None:
        os.sched_setaffinity(0, {core})
    numbers, ends = itertools.count(first), time.monotonic() + seconds
    accepted: list[list[str]] = [[] for _ in range(connections)]

    def run(own: list[str]) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.monotonic() < ends and (number := next(numbers)) < first + most:
                mark = f"{number:016x}".encode()
                connection.sendall(request.replace(_MARK.encode(), mark).replace(_MARK[:12].encode(), mark[4:]))
                own.append(_accepted(connection))

    threads = [threading.Thread(target=run, args=(own,)) for own in accepted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for own in accepted for one in own]


def _accepted(connection: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 202"):
        raise SystemExit(f"not accepted: {head[:200]!r} {body[:300]!r}")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return str(json.loads(body).get("delivery", ""))


def measure(asked: Any, port: int, server: int, secret: str) -> None:
    pids, core = processes(server), None
    if (os.cpu_count() or 1) > 1:
        pin(pids, 0)
        core = 1
    paths = {"bare": "/webhooks/bare/", "parse": "/webhooks/only-parse", "accept": "/webhooks/distribution"}
    requests = {name: delivery(path, secret) for name, path in paths.items()}
    rates: dict[str, list[float]] = {name: [] for name in requests}
    costs: dict[str, list[float]] = {name: [] for name in requests}
    rounds = itertools.count(1)
    for request in requests.values():
        load(asked, port, request, 1, core, next(rounds) << 32)  # warm
    for _ in range(asked.rounds):
        for name, request in requests.items():
            before = cpu_seconds(pids)
            answered = len(load(asked, port, request, asked.seconds, core, next(rounds) << 32))
            rates[name].append(answered / asked.seconds)
            costs[name].append((cpu_seconds(pids) - before) / answered * 1e6)
    for name in requests:
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        print(f"{name:8}{rate:7.0f} deliveries/s {cost:6.0f} us CPU of the server per delivery")
    for floor in ("parse", "bare"):
        ratio = statistics.median(rates["accept"]) / statistics.median(rates[floor])
        by_cpu = statistics.median(costs[floor]) / statistics.median(costs["accept"])
        goal = f"; goal {GOAL} or more" if floor == "parse" else ""
        print(f"accept to {floor}: ratio {ratio:.2f}, by CPU {by_cpu:.2f}{goal}; load {os.getloadavg()[0]:.1f}")


def lose(asked: Any, home: Path, port: int, secret: str) -> None:
    """Kill a worker every few seconds while deliveries arrive. Exits with an error if one is lost."""
    over, kills = threading.Event(), 0

    def kill() -> None:
        nonlocal kills
        while not over.is_set():
            command = [sys.executable, "-m", "scanner.cli", "worker"]
            own = environment(home, asked.database)
            worker = subprocess.Popen(command, env=own, cwd=ROOT, start_new_session=True)
            over.wait(6)
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            kills += 1

    killer = threading.Thread(target=kill)
    killer.start()
    began = time.monotonic()
    try:
        accepted = load(asked, port, delivery("/webhooks/distribution", secret), 3600, None, 1 << 60, asked.lost)
    finally:
        over.set()
        killer.join()
    lost = _lost(home, asked.database, accepted)
    took = time.monotonic() - began
    print(f"{len(accepted)} accepted in {took:.0f} s, a worker killed {kills} times: {lost} lost")
    if lost or len(accepted) != asked.lost:
        raise SystemExit("deliveries were lost")


def _lost(home: Path, database_url: str, accepted: list[str]) -> int:
    """How many of these deliveries are not stored with a scan."""
    import sqlalchemy as sa

    from scanner import config
    from scanner.store.schema import delivery_scan, scan
    from scanner.store.session import Database

    database = Database(config.Settings(home=home, database_url=config.Secret(database_url)).database)
    with database.read() as session:
        query = sa.select(delivery_scan.c.delivery_id).join(scan, scan.c.id == delivery_scan.c.scan_id)
        stored = set(session.execute(query).scalars())
    database.engine.dispose()
    return len(set(accepted) - stored) + len(accepted) - len(set(accepted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--lost", type=int, default=0, help="how many deliveries are sent while a worker is killed")
    databases.add_option(parser)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        from web import server

        server.serve(application(), socket.create_server(("127.0.0.1", asked.serve)))
        return
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        secret = prepare(home, asked.database)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = serve(home, asked.database, port)
        try:
            if asked.rounds:
                measure(asked, port, server.pid, secret)
            if asked.lost:
                lose(asked, home, port, secret)
        finally:
            os.killpg(server.pid, 15)
            server.wait(20)


if __name__ == "__main__":
    main()
