"""A real API server on a real etcd, and Dockwarden's web process with a certificate, for tests of admission.

``.ci/build-part kubernetes`` builds kube-apiserver and kubectl once. There is no kubelet and no controller: pods are
stored and never run, which is all that admission is about.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from scanner.config import Secret, Settings
from scanner.services.admission_manifests import Cluster as ClusterManifests
from scanner.services.admission_manifests import manifests
from scanner.store import accounts, policies
from scanner.store.session import Database
from tests.servers import Authority, end, free_port, need, shifted_clock, spawn, wait_for

_ROOT = Path(__file__).parents[1]
CLIENT_NAME = "api-server.tests"
_ADMIN = "administrator-of-the-tests"
_KEY = Secret("a secret key of the tests, long enough for all of them")


def parts() -> Path:
    """Where kube-apiserver and kubectl are. Skips with what to do."""
    script = [str(_ROOT / ".ci" / "build-part"), "kubernetes"]
    found = Path(subprocess.run(script, capture_output=True, text=True, check=True).stdout.strip())
    if not (found / ".complete").exists():
        pytest.skip("platform: no kube-apiserver was built; install Go 1.24 or newer and run .ci/build-part kubernetes")
    return found


@dataclass
class Cluster:
    """An API server. ``kubectl`` and ``post`` act as its administrator."""

    directory: Path
    port: int = 0

    def start(self) -> Cluster:
        etcd, programs = need("etcd", "etcd-server"), parts()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._kubectl = str(programs / "kubectl")
        client, peer, self.port = free_port(), free_port(), free_port()
        log = self.directory / "etcd.log"
        urls = [f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}"]
        urls += [
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        ]
        urls += [f"--initial-cluster=default=http://127.0.0.1:{peer}", f"--data-dir={self.directory / 'etcd'}"]
        self._etcd = spawn(
            [etcd, *urls, "--unsafe-no-fsync"], log, shifted_clock() | {"ETCD_UNSUPPORTED_ARCH": "arm64"}
        )
        wait_for(lambda: _answers(f"http://127.0.0.1:{client}/health"), "etcd", log)
        public, key = Authority.make(self.directory / "accounts").issue("accounts")
        self.clients = Authority.make(self.directory / "clients")
        (self.directory / "tokens.csv").write_text(f'{_ADMIN},admin,1,"system:masters"\n')
        log = self.directory / "apiserver.log"
        command = [
            str(programs / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.directory / 'certificates'}",
            "--service-account-issuer=https://kubernetes.example.com",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            f"--admission-control-config-file={self._webhook_clients()}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.99.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            "--anonymous-auth=false",
        ]
        self._server = spawn(command, log, shifted_clock())
        wait_for(lambda: self._call("GET", "/readyz").status_code == 200, "kube-apiserver", log, 60)
        return self

    def _webhook_clients(self) -> Path:
        """The configuration by which the API server presents a client certificate to webhooks."""
        certificate, key = self.clients.issue("api-server", (CLIENT_NAME,))
        user = {"name": "*", "user": {"client-certificate": str(certificate), "client-key": str(key)}}
        config = self.directory / "webhooks.kubeconfig"
        config.write_bytes(orjson.dumps({"apiVersion": "v1", "kind": "Config", "users": [user]}))
        version = "apiserver.config.k8s.io/v1"
        own = {"apiVersion": version, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": str(config)}
        plugins = [
            {"name": name, "configuration": own} for name in ("ValidatingAdmissionWebhook", "MutatingAdmissionWebhook")
        ]
        file = self.directory / "admission.yaml"
        file.write_bytes(orjson.dumps({"apiVersion": version, "kind": "AdmissionConfiguration", "plugins": plugins}))
        return file

    def stop(self) -> None:
        end(self._server)
        end(self._etcd)

    def kubectl(self, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        """What kubectl prints, on both channels. ``fails``: it must."""
        options = [f"--server=https://127.0.0.1:{self.port}", "--insecure-skip-tls-verify", f"--token={_ADMIN}"]
        environment = shifted_clock() | {"HOME": str(self.directory), "KUBECONFIG": os.devnull}
        command = [self._kubectl, *options, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, env=environment)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def example(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A script of examples/, run by somebody whose kubectl is set up for this cluster."""
        config = self.directory / "config"
        steps = [
            ["config", "set-cluster", "c", f"--server=https://127.0.0.1:{self.port}", "--insecure-skip-tls-verify"],
            ["config", "set-credentials", "u", f"--token={_ADMIN}"],
            ["config", "set-context", "x", "--cluster=c", "--user=u"],
            ["config", "use-context", "x"],
        ]
        path = f"{Path(self._kubectl).parent}:{os.environ['PATH']}"
        environment = shifted_clock() | {"HOME": str(self.directory), "KUBECONFIG": str(config), "PATH": path}
        for command in steps:
            subprocess.run([self._kubectl, *command], env=environment, check=True, capture_output=True)
        program = [str(_ROOT / "examples" / script), *arguments]
        return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120)

    def apply(self, value: dict[str, Any], *arguments: str, fails: bool = False) -> str:
        return self.kubectl("apply", *arguments, "-f", "-", stdin=orjson.dumps(value).decode(), fails=fails)

    def create_at_once(self, pods: list[dict[str, Any]], threads: int = 20) -> list[int]:
        """Create pods in parallel. Returns the statuses."""

        def create(pod: dict[str, Any]) -> int:
            return self._call("POST", f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods", pod).status_code

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(create, pods))

    def _call(self, method: str, path: str, document: Any = None) -> httpx.Response:
        try:
            return httpx.request(
                method,
                f"https://127.0.0.1:{self.port}{path}",
                json=document,
                headers={"Authorization": f"Bearer {_ADMIN}"},
                verify=False,  # the API server's own certificate, made when it starts
                timeout=30,
            )
        except httpx.TransportError:
            return httpx.Response(503)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Door:
    """Dockwarden's web process with TLS, on a database of its own that the tests write into as workers do."""

    directory: Path
    client_ca: Path  # of the client certificates that it accepts instead of a token

    def start(self) -> Door:
        self.authority = Authority.make(self.directory / "authority")
        certificate, key = self.authority.issue("server")
        self.settings = replace(Settings(), home=self.directory / "home", secret_key=_KEY)
        self.database = Database(self.settings.database)
        self.settings.home.mkdir(parents=True)
        self.database.upgrade()
        with self.database.session() as session:
            self.token = accounts.create_token(session, "cluster", ["admission"], _KEY)[1]
        self.port = free_port()
        variables = {
            "PATH": os.environ["PATH"],
            "DOCKWARDEN_HOME": str(self.settings.home),
            "DOCKWARDEN_SECRET_KEY": _KEY.reveal(),
            "DOCKWARDEN_PORT": str(self.port),
            "DOCKWARDEN_TLS_CERTIFICATE": str(certificate),
            "DOCKWARDEN_TLS_KEY": str(key),
            "DOCKWARDEN_ADMISSION_CLIENT_CA": str(self.client_ca),
            "DOCKWARDEN_ADMISSION_CLIENT_NAMES": CLIENT_NAME,
            "DOCKWARDEN_ADMISSION_WAIT_SECONDS": "0.5",
            "DOCKWARDEN_PUBLIC_URL": "https://dockwarden.example.com",
        }
        log = self.directory / "log"
        program = str(Path(sys.executable).parent / "dockwarden")
        self._process = spawn([program, "serve", "--web-only"], log, shifted_clock() | variables)
        wait_for(self._answers, "dockwarden", log, 60)
        return self

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def stop(self) -> None:
        end(self._process)
        self.database.engine.dispose()

    def renew_certificate(self, days: int = 30) -> None:
        """Replace the certificate's files, and return when new connections get it. ``days`` below 0: it has expired."""
        certificate, _ = self.authority.issue("server", days=days)
        wanted = ssl.PEM_cert_to_DER_cert(certificate.read_text())

        def presented() -> bool:
            return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", self.port), timeout=5)) == wanted

        wait_for(presented, "the renewed certificate", self.directory / "log", 60)

    def policy(self, text: str) -> None:
        with self.database.session() as session:
            policies.put(session, "cluster", text, "test")

    def manifests(self, **more: Any) -> str:
        """The webhook's manifests, as the command prints them."""
        options: dict[str, Any] = {"url": self.url, "token": self.token, "ca": self.authority.file.read_bytes()}
        return manifests(ClusterManifests(**(options | more)))

    def _answers(self) -> bool:
        try:
            trust = ssl.create_default_context(cafile=str(self.authority.file))
            return httpx.get(f"{self.url}/healthz", verify=trust, timeout=2).status_code == 200
        except httpx.TransportError:
            return False
