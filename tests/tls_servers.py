"""TLS in front of a registry, good and bad in one way each: real nginx and openssl processes on the loopback."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ocsp

from tests.servers import end, free_port, listening, need, spawn, wait_for


@dataclass
class Proxy:
    """nginx that ends TLS before a registry. ``directives`` go into its server block."""

    directory: Path
    certificate: Path
    key: Path
    upstream: str
    directives: str = "ssl_protocols TLSv1.2 TLSv1.3;"
    port: int = 0

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def start(self) -> Proxy:
        program = need("nginx", "nginx-light")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        self.port = self.port or free_port()
        log = self.directory / "log"
        (self.directory / "nginx.conf").write_text(self._config())
        self._process = spawn(
            [program, "-p", str(self.directory), "-c", str(self.directory / "nginx.conf"), "-e", str(log)], log
        )
        wait_for(lambda: listening(self.port), "nginx", log)
        return self

    def stop(self) -> None:
        end(self._process)

    def _config(self) -> str:
        paths = "\n".join(
            f"  {name}_temp_path {self.directory}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
daemon off; worker_processes 1; pid {self.directory}/pid; user root;
events {{ worker_connections 64; }}
http {{
  access_log off;
{paths}
  server {{
    listen 127.0.0.1:{self.port} ssl;
    ssl_certificate {self.certificate};
    ssl_certificate_key {self.key};
    {self.directives}
    location / {{ proxy_pass http://{self.upstream};
        proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https; }}
  }}
}}
"""


@dataclass
class OpenSsl:
    """``openssl s_server -www``: any version and cipher that OpenSSL still knows, and no registry behind it."""

    directory: Path
    certificate: Path
    key: Path
    options: tuple[str, ...]
    port: int = 0

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def start(self) -> OpenSsl:
        program = need("openssl", "openssl")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        log = self.directory / "log"
        command = [
            program,
            "s_server",
            "-accept",
            f"127.0.0.1:{self.port}",
            "-cert",
            str(self.certificate),
            "-key",
            str(self.key),
            "-www",
        ]
        self._process = spawn([*command, *self.options], log)
        wait_for(lambda: listening(self.port), "openssl s_server", log)
        return self

    def stop(self) -> None:
        end(self._process)


def self_signed(
    directory: Path, *arguments: str, hosts: str = "DNS:localhost,IP:127.0.0.1", days: int = 365
) -> tuple[Path, Path]:
    """A certificate that vouches for itself, made by openssl with these arguments (``-newkey rsa:1024``, ``-sha1``
    …).
    """
    directory.mkdir(parents=True, exist_ok=True)
    crt, key = directory / "self.crt", directory / "self.key"
    command = [
        need("openssl", "openssl"),
        "req",
        "-x509",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-addext",
        f"subjectAltName={hosts}",
    ]
    command += [
        "-days",
        str(days),
        "-keyout",
        str(key),
        "-out",
        str(crt),
        *(arguments or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return crt, key


def ocsp_answer(directory: Path, certificate: Path, key: Path) -> Path:
    """What an OCSP responder says of a certificate that vouches for itself: good, until tomorrow."""
    subject = x509.load_pem_x509_certificate(certificate.read_bytes())
    signer = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(signer, rsa.RSAPrivateKey)
    now = datetime.now(UTC)
    builder = ocsp.OCSPResponseBuilder().add_response(
        subject, subject, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, now, now + timedelta(days=1), None, None
    )
    answer = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, subject).sign(signer, hashes.SHA256())
    file = directory / "ocsp.der"
    file.write_bytes(answer.public_bytes(serialization.Encoding.DER))
    return file
