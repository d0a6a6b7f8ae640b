"""Real servers for tests, each on the loopback, in a directory of its own, ended with the test run however that
ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shifted_clock() -> dict[str, str]:
    """The variables of a run with a shifted clock (``tests/shifted_clock``), for a child that is given no other of
    ours.
    """
    own = ("LD_PRELOAD", "PYTHONPATH", "DONT_FAKE_MONOTONIC")
    return {name: value for name, value in os.environ.items() if name in own or name.startswith("FAKETIME")}


@contextlib.contextmanager
def real_clock() -> Iterator[None]:
    """What is started meanwhile has the machine's clock, in a run with a shifted one too: Chromium stalls with a
    shifted clock.
    """
    preloaded = os.environ.pop("LD_PRELOAD", None)
    try:
        yield
    finally:
        if preloaded is not None:
            os.environ["LD_PRELOAD"] = preloaded


def measured() -> dict[str, str]:
    """The variable that makes a Python child say which lines it ran, when this run is under coverage."""
    return {name: value for name, value in os.environ.items() if name == "COVERAGE_PROCESS_CONFIG"}


def need(program: str, package: str) -> str:
    """The program's path. Skips with what to install; in CI that fails the run (see conftest)."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")
    return found


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A child that dies with us. It is measured whatever else its environment holds."""
    if environment is not None:
        environment = {**environment, **measured()}
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )


def wait_for(ready: object, what: str, log: Path, seconds: float = 30) -> None:
    """Until ``ready()`` is true; fails with the server's own log."""
    assert callable(ready)
    ends = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > ends:
            pytest.fail(f"{what} did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the tests' own."""

    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> Path:
        return self.directory / "ca.crt"

    @classmethod
    def make(cls, directory: Path) -> Authority:
        directory.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests' own CA")])
        certificate = _certificate(name, key.public_key(), name, key, days=30, authority=True, hosts=())
        (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(directory, key, certificate)

    def issue(self, name: str, hosts: Sequence[str] = ("127.0.0.1", "localhost"), days: int = 30) -> tuple[Path, Path]:
        """A server's certificate and key files; ``days`` below 0: it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        certificate = _certificate(
            subject, key.public_key(), self.certificate.subject, self.key, days=days, authority=False, hosts=hosts
        )
        crt, pem = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return crt, pem


def _certificate(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    authority: bool,
    hosts: Sequence[str],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if hosts:
        names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


@dataclass
class Registry:
    """A real docker-registry (distribution). ``host`` is what a reference begins with."""

    directory: Path
    authority: Authority | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    notifications: Sequence[Mapping[str, object]] = ()
    port: int = 0
    token_realm: str = ""  # the token service that lets in, whose tokens are signed below ``token_root``
    token_root: Path = Path()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Registry:
        program = need("docker-registry", "docker-registry")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        log = self.directory / "log"
        (self.directory / "config.yml").write_text(self._config())
        self._process = spawn([program, "serve", str(self.directory / "config.yml")], log)
        wait_for(lambda: listening(self.port), "docker-registry", log)
        return self

    def stop(self) -> None:
        end(self._process)

    def _config(self) -> str:
        lines = [
            "version: 0.1",
            "log: {level: warn}",
            f"storage: {{filesystem: {{rootdirectory: {self.directory / 'data'}}}, delete: {{enabled: true}}}}",
        ]
        tls = ""
        if self.authority:
            crt, key = self.authority.issue(f"registry-{self.port}")
            tls = f", tls: {{certificate: {crt}, key: {key}}}"
        lines.append(f'http: {{addr: "127.0.0.1:{self.port}"{tls}}}')
        if self.username:
            file = self.directory / "htpasswd"
            made = subprocess.run(
                [need("htpasswd", "apache2-utils"), "-Bbn", self.username, self.password],
                check=True,
                capture_output=True,
            )
            file.write_bytes(made.stdout)
            lines.append(f"auth: {{htpasswd: {{realm: tests, path: {file}}}}}")
        elif self.token_realm:
            trusted = f"issuer: tests, rootcertbundle: {self.token_root}"
            lines.append(f'auth: {{token: {{realm: "{self.token_realm}", service: tests, {trusted}}}}}')
        if self.notifications:
            lines.append("notifications:\n  endpoints:")
            for number, endpoint in enumerate(self.notifications):
                lines.append(
                    f'    - {{name: e{number}, url: "{endpoint["url"]}", timeout: 2s, threshold: 3, backoff: '
                    f'1s, headers: {{Authorization: ["{endpoint["authorization"]}"]}}}}'
                )
        return "\n".join(lines) + "\n"

    def push(self, source: str, name: str, credentials: str = "") -> None:
        """Copy ``oci:DIR`` or ``oci-archive:FILE`` here with skopeo, as a person would."""
        command = [need("skopeo", "skopeo"), "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
        if self.username or credentials:
            command += ["--dest-creds", credentials or f"{self.username}:{self.password}"]
        subprocess.run([*command, source, f"docker://{self.host}/{name}"], check=True, capture_output=True, timeout=60)


@dataclass
class Dockwarden:
    """``dockwarden serve``, embedded, with the samples' advisories. ``token`` is the administrator's."""

    url: str
    token: str = field(repr=False)
    home: Path = Path()

    def api(self, method: str, path: str, **more: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, trust_env=False, **more)  # type: ignore[arg-type]
