"""Real Docker engines: one by itself, and one that asks ``dockwarden docker-authz``, which asks a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from tests.servers import Dockwarden, end, measured, need, shifted_clock, spawn, wait_for

ROOT = Path(__file__).parents[1]


def host_of(base: Path) -> str:
    """The DOCKER_HOST of the engine below ``base``."""
    return f"unix://{base}/engine.sock"


@contextmanager
def docker_engine(base: Path, *options: str) -> Iterator[str]:
    """dockerd with its state below ``base``. Yields its DOCKER_HOST. Skips where no engine can run."""
    host, log = host_of(base), base / "dockerd.log"
    command = [_program(), "--storage-driver=vfs", "--iptables=false", "--bridge=none", "-H", host, *options]
    command += [f"--data-root={base}/data", f"--exec-root={base}/exec", f"--pidfile={base}/pid"]
    process = spawn(command, log, {**os.environ})
    try:
        wait_for(lambda: process.poll() is not None or _answers(host), "dockerd", log, 60)
        if process.poll() is not None:
            pytest.skip(f"platform: dockerd cannot run here: {log.read_text()[-300:]}")
        yield host
    finally:
        process.terminate()  # so that it unmounts what it mounted
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        end(process)
        # The data, and the network namespaces of containers that ran: what is mounted cannot be removed.
        mounted = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for path in sorted((path for path in mounted if path.startswith(f"{base}/")), reverse=True):
            subprocess.run(["umount", "--lazy", path], capture_output=True, check=False)


def _program() -> str:
    program = need("dockerd", "docker.io")
    if os.getuid() != 0:
        pytest.skip("platform: a Docker engine can only be started by root")
    return program


def _answers(host: str) -> bool:
    try:
        with closing(docker.DockerClient(base_url=host, timeout=5)) as client:
            return bool(client.ping())
    except DockerException:
        return False


@dataclass
class GuardedEngine:
    """dockerd with the plugin. ``docker`` runs Docker's own client against it."""

    directory: Path
    server: Dockwarden
    token: str
    environment: str = ""

    @property
    def host(self) -> str:
        return host_of(self.directory)

    @contextmanager
    def running(self) -> Iterator[GuardedEngine]:
        """Skips where no engine can run."""
        # The engine looks for plug-ins in directories of the whole machine, so the name is this process's own.
        _program()  # skips before anything is written outside of the tests' directories
        plugin = f"dockwarden-{os.getpid()}"
        address = Path("/etc/docker/plugins") / f"{plugin}.spec"
        address.parent.mkdir(parents=True, exist_ok=True)
        address.write_text(f"unix://{self.directory}/authz.sock\n")
        self.start_plugin()
        try:
            with docker_engine(self.directory, f"--authorization-plugin={plugin}"):
                yield self
        finally:
            self.stop_plugin()
            address.unlink()

    def start_plugin(self, *options: str) -> None:
        log, socket = self.directory / "authz.log", self.directory / "authz.sock"
        command = [sys.executable, "-m", "scanner.cli", "docker-authz", "--server", self.server.url]
        command += ["--socket", str(socket), "--environment", self.environment, "--name", "host-of-the-tests", *options]
        variables = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "DOCKWARDEN_TOKEN": self.token}
        variables |= {"DOCKER_HOST": self.host, **shifted_clock(), **measured()}
        self._plugin = spawn(command, log, variables)
        wait_for(socket.exists, "dockwarden docker-authz", log, 60)

    def stop_plugin(self) -> None:
        self._plugin.terminate()
        try:
            self._plugin.wait(20)
        finally:
            end(self._plugin)

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(need("docker", "docker.io"), *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "DOCKER_HOST": self.host}
        return subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, check=False)
