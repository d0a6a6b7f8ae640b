"""A real notary-signer and notary-server, and people who sign with the real docker and notary clients.

All on the loopback.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers import Authority, end, free_port, listening, need, spawn, wait_for

_PHRASES = {
    "DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE": "rootpass123",
    "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE": "repopass123",
    "NOTARY_ROOT_PASSPHRASE": "rootpass123",
    "NOTARY_TARGETS_PASSPHRASE": "repopass123",
    "NOTARY_SNAPSHOT_PASSPHRASE": "repopass123",
    "NOTARY_DELEGATION_PASSPHRASE": "repopass123",
}


class NotaryLab:
    """notary-server with keys of a notary-signer, both in memory."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.directory, self.authority = directory, authority
        self.port, self._signer_port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"

    def start(self) -> NotaryLab:
        self.directory.mkdir(parents=True, exist_ok=True)
        crt, key = map(str, self.authority.issue("notary-server"))
        signer_crt, signer_key = map(str, self.authority.issue("notary-signer"))
        ca = str(self.authority.file)
        signer = {
            "server": {
                "grpc_addr": f"127.0.0.1:{self._signer_port}",
                "tls_cert_file": signer_crt,
                "tls_key_file": signer_key,
                "client_ca_file": ca,
            },
            "logging": {"level": "info"},
            "storage": {"backend": "memory"},
        }
        server = {
            "server": {"http_addr": f"127.0.0.1:{self.port}", "tls_cert_file": crt, "tls_key_file": key},
            "trust_service": {
                "type": "remote",
                "hostname": "127.0.0.1",
                "port": str(self._signer_port),
                "tls_ca_file": ca,
                "key_algorithm": "ecdsa",
                "tls_client_cert": crt,
                "tls_client_key": key,
            },
            "caching": {"max_age": {"current_metadata": 0, "consistent_metadata": 0}},
            "logging": {"level": "info"},
            "storage": {"backend": "memory"},
        }
        self._processes = [
            self._spawn("notary-signer", signer, self._signer_port),
            self._spawn("notary-server", server, self.port),
        ]
        return self

    def _spawn(self, program: str, configuration: object, port: int) -> subprocess.Popen[bytes]:
        file, log = self.directory / f"{program}.json", self.directory / f"{program}.log"
        file.write_text(json.dumps(configuration))
        process = spawn([need(program, "notary"), "-config", str(file), "-logf", "logfmt"], log)
        wait_for(lambda: listening(port), program, log)
        return process

    def stop(self) -> None:
        for process in self._processes:
            end(process)

    def person(self, name: str, docker_host: str, registry: str) -> Person:
        """Somebody with a docker configuration, and keys, of their own."""
        config = self.directory / name
        for host in (f"127.0.0.1:{self.port}", registry):
            place = config / "tls" / host
            place.mkdir(parents=True, exist_ok=True)
            (place / "ca.crt").write_bytes(self.authority.file.read_bytes())
        return Person(name, config, self.url, docker_host, self.authority.file)


@dataclass(frozen=True)
class Person:
    name: str
    config: Path
    server: str
    docker_host: str
    ca: Path

    def docker(self, *arguments: str, **environment: str) -> str:
        """The docker client, with content trust on this lab's server."""
        return self._run(need("docker", "docker.io"), *arguments, **environment)

    def notary(self, *arguments: str) -> str:
        trust = str(self.config / "trust")
        return self._run(
            need("notary", "notary"), "-s", self.server, "-d", trust, "--tlscacert", str(self.ca), *arguments
        )

    def _run(self, *command: str, **environment: str) -> str:
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.config),
            "DOCKER_CONFIG": str(self.config),
            "DOCKER_HOST": self.docker_host,
            "DOCKER_CONTENT_TRUST_SERVER": self.server,
            **_PHRASES,
            **environment,
        }
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout
