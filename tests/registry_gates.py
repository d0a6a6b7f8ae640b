"""A real nginx that asks Dockwarden before a registry, configured by ``examples/nginx/registry.conf``."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers import end, free_port, listening, need, spawn, wait_for

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass
class Gate:
    """nginx on plain HTTP in front of ``registry`` (host:port). ``dockwarden`` is the server's host:port."""

    directory: Path
    registry: str
    dockwarden: str
    token: str
    query: str = ""
    patience: str = "30s"  # how long nginx waits for an answer
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Gate:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        self.port = self.port or free_port()
        log, configuration = self.directory / "log", self.directory / "nginx.conf"
        (self.directory / "token.conf").write_text(f'proxy_set_header Authorization "Bearer {self.token}";\n')
        configuration.write_text(self._config())
        command = [need("nginx", "nginx-light"), "-p", str(self.directory), "-c", str(configuration), "-e", str(log)]
        self._process = spawn(command, log)
        wait_for(lambda: listening(self.port), "nginx", log)
        return self

    def stop(self) -> None:
        end(self._process)

    def get(self, path: str, method: str = "GET") -> httpx.Response:
        accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        headers = {"Accept": accept}
        return httpx.request(method, f"http://{self.host}{path}", headers=headers, timeout=60, trust_env=False)

    def refused(self, name: str) -> subprocess.CompletedProcess[str]:
        """The script that shows a refusal."""
        command = [str(EXAMPLES / "nginx" / "refused.sh"), f"{self.host}/{name}", "--src-tls-verify=false"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)

    def _config(self) -> str:
        """The example with these addresses, and without a certificate."""
        text = (EXAMPLES / "nginx" / "registry.conf").read_text()
        for old, new in (
            ("server 127.0.0.1:5000;", f"server {self.registry};"),
            ("server 127.0.0.1:8080;", f"server {self.dockwarden};"),
            ("listen 443 ssl;", f"listen {self.host};"),
            ("?registry=registry.example.com", f"?registry={self.host}{self.query}"),
            ("proxy_read_timeout 30s;", f"proxy_read_timeout {self.patience};"),
            ("server_name registry.example.com;", "server_name _;"),
            ("proxy_set_header Host registry.example.com;", f"proxy_set_header Host {self.host};"),
            ("/etc/nginx/dockwarden-token.conf", f"{self.directory}/token.conf"),
        ):
            assert old in text, f"the example does not hold {old!r} any more"
            text = text.replace(old, new)
        text = "\n".join(line for line in text.splitlines() if "ssl_certificate" not in line)
        paths = "\n".join(
            f"{name}_temp_path {self.directory}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            f"daemon off; worker_processes 1; pid {self.directory}/pid; user root;\n"
            f"events {{ worker_connections 256; }}\nhttp {{ access_log off;\n{paths}\n{text}\n}}\n"
        )
