"""A real Docker engine that asks ``dockwarden docker-authz``, which asks a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import Dockwarden, end, measured, need, shifted_clock, spawn, wait_for

ROOT = Path(__file__).parents[1]


@dataclass
class GuardedEngine:
    """dockerd with the plugin. ``docker`` runs Docker's own client against it."""

    directory: Path
    server: Dockwarden
    token: str
    environment: str = ""

    @property
    def host(self) -> str:
        return f"unix://{self.directory}/engine.sock"

    @contextmanager
    def running(self) -> Iterator[GuardedEngine]:
        """Skips where no engine can run."""
        program = need("dockerd", "docker.io")
        if os.getuid() != 0:
            pytest.skip("platform: a Docker engine can only be started by root")
        # The engine looks for plug-ins in directories of the whole machine, so the name is this process's own.
        self.plugin = f"dockwarden-{os.getpid()}"
        address = Path("/etc/docker/plugins") / f"{self.plugin}.spec"
        address.parent.mkdir(parents=True, exist_ok=True)
        address.write_text(f"unix://{self.directory}/authz.sock\n")
        self.start_plugin()
        log = self.directory / "dockerd.log"
        command = [program, "--storage-driver=vfs", "--iptables=false", "--bridge=none", "-H", self.host]
        command += [f"--authorization-plugin={self.plugin}", f"--pidfile={self.directory}/pid"]
        command += [f"--data-root={self.directory}/data", f"--exec-root={self.directory}/exec"]
        process = spawn(command, log, {**os.environ})
        try:
            wait_for(lambda: process.poll() is not None or self._answers(), "dockerd", log, 60)
            if process.poll() is not None:
                pytest.skip(f"platform: dockerd cannot run here: {log.read_text()[-300:]}")
            yield self
        finally:
            process.terminate()  # so that it unmounts what it mounted
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                end(process)
            self.stop_plugin()
            address.unlink()
            subprocess.run(["umount", "--lazy", f"{self.directory}/data"], capture_output=True, check=False)

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

    def _answers(self) -> bool:
        return (self.directory / "engine.sock").exists() and self.docker("version").returncode == 0
