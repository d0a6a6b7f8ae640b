"""What the Docker authorization plugin adds to a request that concerns nobody: both of the engine's calls, in ms.

    python benchmarks/docker_authz.py [--calls 5000]

The plugin runs in a process of its own, as on a host; the client sends what the engine sends for ``docker ps``, over
one connection. Median and 99th percentile are told.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL = 1.0


def request(path: str, document: dict[str, object]) -> bytes:
    data = json.dumps(document).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/s"
        command = [sys.executable, "-m", "scanner.cli", "docker-authz", "--server", "http://127.0.0.1:1"]
        plugin = subprocess.Popen([*command, "--socket", path], cwd=Path(__file__).parents[1])
        try:
            measure(path, asked.calls)
        finally:
            plugin.terminate()
            plugin.wait(20)


def measure(path: str, calls: int) -> None:
    ends = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < ends:
        time.sleep(0.05)
    asked = {"User": "", "RequestMethod": "GET", "RequestUri": "/v1.41/containers/json", "RequestHeaders": {"A": "b"}}
    first = request("/AuthZPlugin.AuthZReq", asked)
    second = request("/AuthZPlugin.AuthZRes", asked | {"ResponseBody": "W10=" * 500, "ResponseStatusCode": 200})
    took = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        for _ in range(calls):
            began = time.perf_counter()
            for data in (first, second):
                connection.sendall(data)
                assert b'"Allow":true' in connection.recv(4096)
            took.append((time.perf_counter() - began) * 1000)
    took.sort()
    median, slow = statistics.median(took), took[int(len(took) * 0.99)]
    print(f"a request that concerns nobody: median {median:.3f} ms, 99th percentile {slow:.3f} ms")
    print(f"goal: {GOAL} ms or less; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
