"""Decided admission reviews per second, as a ratio to the same route that always allows (an exempt namespace).

    python benchmarks/admission.py [--rounds 5] [--seconds 3]

Both are whole AdmissionReviews of a pod with two containers by digest, on the same server, in turn. Medians are told,
the 99th percentile at 50 reviews a second, and the server's CPU time per review, because other work on the machine
slows the wall clock and not it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gate import answer, cpu_seconds, decided, http, load, pin, processes, served

GOAL = 0.5
PACE = 50  # reviews a second, as a large cluster asks
P99_GOAL = 5


def prepare(home: Path) -> tuple[str, list[str]]:
    """A database with two images that are allowed. Returns a token and their references."""
    from scanner import config
    from scanner.store import accounts
    from scanner.store.session import Database
    from tests.scanner.store import factories as make

    settings = config.Settings(home=home)
    database = Database(settings.database)
    database.upgrade()
    with database.session() as session:
        token = accounts.create_token(session, "benchmark", ["admission"], config.secret_key(settings))[1]
        images = [decided(session, make.report(name, packages=[make.package(1)])) for name in ("first", "second")]
    database.engine.dispose()
    return token.reveal(), images


def review(images: list[str], namespace: str) -> bytes:
    from tests.kubernetes_objects import pod
    from tests.kubernetes_objects import review as make

    return json.dumps(make(pod(*images, namespace=namespace))).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        token, images = prepare(Path(directory))
        with served(Path(directory), "") as (port, process):
            measure(asked, port, process, token, images)


def measure(asked: Any, port: int, server: int, token: str, images: list[str]) -> None:
    pids, client_core = processes(server), None
    if (os.cpu_count() or 1) > 1:
        pin(pids, 0)
        client_core = 1
    path = f"/adapters/kubernetes/admit/{token}/audit"
    requests = {
        "always allowed": http("POST", path, body=review(images, "kube-system")),
        "decided": http("POST", path, body=review(images, "shop")),
    }
    rates: dict[str, list[float]] = {name: [] for name in requests}
    costs: dict[str, list[float]] = {name: [] for name in requests}
    for request in requests.values():
        load(port, request, 1, client_core)  # warm
    for _ in range(asked.rounds):
        for name, request in requests.items():
            before = cpu_seconds(pids)
            answered = load(port, request, asked.seconds, client_core)
            rates[name].append(answered / asked.seconds)
            costs[name].append((cpu_seconds(pids) - before) / answered * 1e6)
    for name in requests:
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        print(f"{name:16}{rate:7.0f} reviews/s {cost:6.0f} us CPU of the server per review")
    ratio = statistics.median(rates["decided"]) / statistics.median(rates["always allowed"])
    by_cpu = statistics.median(costs["always allowed"]) / statistics.median(costs["decided"])
    print(f"ratio {ratio:.2f}, by CPU {by_cpu:.2f}; goal {GOAL} or more; load {os.getloadavg()[0]:.1f}")
    slow = {name: paced(port, request, asked.seconds * 2) for name, request in requests.items()}
    times = slow["decided"] / slow["always allowed"]
    shown = ", ".join(f"{name} {value:.1f} ms" for name, value in slow.items())
    print(f"99th percentile at {PACE} reviews/s: {shown}; {times:.1f} times, goal {P99_GOAL} or less")


def paced(port: int, request: bytes, seconds: float) -> float:
    """The 99th percentile of the time to an answer, in ms, at ``PACE`` reviews a second over one connection."""
    took: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(int(seconds * PACE)):
            began = time.perf_counter()
            connection.sendall(request)
            answer(connection)
            took.append(time.perf_counter() - began)
            time.sleep(max(0.0, 1 / PACE - took[-1]))
    return sorted(took)[int(len(took) * 0.99)] * 1000


if __name__ == "__main__":
    main()
