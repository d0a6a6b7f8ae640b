"""The process tree of ``serve``: a child that dies is started again, and nobody outlives the parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scanner.config import Secret, Settings, load
from scanner.worker.supervisor import environment_of

PATIENCE = 60.0


class Server:
    """``supervise`` in a process of its own, with all its state under ``home``."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        settings = {"DOCKWARDEN_HOME": str(home), "DOCKWARDEN_PORT": str(self.port)}
        code = "from scanner.config import load; from scanner.worker.supervisor import supervise; supervise(load())"
        root = Path(__file__).parents[3]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKWARDEN_")} | settings
        self._log = home.parent / "server.log"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], cwd=root, env=environment, stdout=out, stderr=out
            )

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def children(self) -> dict[str, int]:
        """Role to process id."""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"scanner.worker.supervisor" in words:
                found[words[words.index(b"scanner.worker.supervisor") + 1].decode()] = int(pid)
        return found

    def alive(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def until(self, reached: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < ends, self.said()[-3000:]
            time.sleep(0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "var")
    server.until(lambda: server.alive() and len(server.children()) == 2)
    yield server
    if server.process.poll() is None:
        server.process.terminate()
        server.process.wait(30)


def gone(pid: int) -> bool:
    """Ended, whether or not somebody has collected it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("role", ["web", "worker"])
def test_a_child_that_dies_is_started_again(server: Server, role: str) -> None:
    before = server.children()
    os.kill(before[role], signal.SIGKILL)
    server.until(lambda: server.children().get(role, before[role]) != before[role])
    server.until(server.alive)
    other = "web" if role == "worker" else "worker"
    assert server.children()[other] == before[other]


def test_nobody_outlives_a_parent_that_is_killed(server: Server) -> None:
    children = server.children()
    server.process.kill()
    server.process.wait(60)
    server.until(lambda: all(gone(pid) for pid in children.values()))


def test_a_parent_that_is_told_to_end_takes_them_along(server: Server) -> None:
    children = server.children()
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert all(gone(pid) for pid in children.values())


def test_a_reload_right_after_the_start_does_not_end_the_server(tmp_path: Path) -> None:
    """A service manager may send SIGHUP while the server still waits for its database."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        url = f"postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        own = {"DOCKWARDEN_HOME": str(tmp_path), "DOCKWARDEN_DATABASE_URL": url, "DOCKWARDEN_PORT": "0"}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKWARDEN_")} | own
        command = [sys.executable, "-m", "scanner.cli", "serve", "--web-only"]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[3], env=environment, stderr=subprocess.DEVNULL)
        try:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGHUP)
            connection.close()
            silent.close()
            assert process.wait(PATIENCE) == 3, "the database does not answer"
        finally:
            process.kill()
            process.wait()


def test_the_first_run_shows_a_token_once(server: Server, tmp_path: Path) -> None:
    text = server.said()
    assert text.count("first run:") == 1
    token = text.partition("shown again: ")[2].split()[0]
    server.process.terminate()
    server.process.wait(30)
    again = Server(tmp_path / "var")
    try:
        again.until(again.alive)
        assert "first run" not in again.said()
        assert token.encode() not in (tmp_path / "var/dockwarden.db").read_bytes()
    finally:
        again.process.terminate()
        again.process.wait(30)


def test_a_child_reads_the_settings_its_parent_has(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        database_url=Secret("postgresql://u:p@h/d"),
        lanes=("gate",),
        workers=7,
        log_json=True,
        ca_file=tmp_path / "ca",
        insecure_registries=("a:5000", "b"),
        lease_seconds=3.5,
        rate_limits=False,
    )
    assert load(environment_of(settings)) == settings
