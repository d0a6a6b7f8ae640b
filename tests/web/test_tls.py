"""The server's own certificate: used, renewed without a restart, and refused where it cannot be."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scanner.config import Settings
from scanner.errors import UsageError
from tests.servers import Authority
from web import tls
from web.tls import Certificate

ROOT = Path(__file__).parents[2]


def serial(certificate: Certificate, authority: Authority) -> int:
    """The serial number of the certificate that a client is shown."""
    ours, theirs = socket.socketpair()
    client = ssl.create_default_context(cafile=str(authority.file))

    def answer() -> None:
        with certificate.context.wrap_socket(ours, server_side=True) as connection:
            connection.recv(1)

    thread = threading.Thread(target=answer)
    thread.start()
    with client.wrap_socket(theirs, server_hostname="localhost") as connection:
        found = connection.getpeercert()
        connection.sendall(b"x")
    thread.join()
    assert found
    return int(str(found["serialNumber"]), 16)


def test_a_renewed_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    first = Certificate(*authority.issue("server"))
    before = serial(first, authority)
    assert not first.refresh()
    authority.issue("server")  # the same files, anew
    assert first.refresh()
    assert serial(first, authority) != before


def test_half_a_certificate_leaves_the_former_in_use(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    crt, key = authority.issue("server")
    certificate = Certificate(crt, key)
    before, whole = serial(certificate, authority), crt.read_bytes()
    crt.write_bytes(whole[:100])
    assert not certificate.refresh()
    assert serial(certificate, authority) == before
    crt.write_bytes(whole)
    assert certificate.refresh()


def test_what_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path) -> None:
    crt, key = Authority.make(tmp_path).issue("server")
    assert tls.of_settings(Settings()) is None
    for settings in (
        Settings(tls_certificate=crt),
        Settings(tls_key=key),
        Settings(tls_certificate=key, tls_key=crt),
        Settings(tls_certificate=tmp_path / "none", tls_key=key),
    ):
        with pytest.raises(UsageError) as refused:
            tls.of_settings(settings)
        assert refused.value.hint


def test_the_names_of_a_client_certificate() -> None:
    certificate = {
        "subject": ((("organizationName", "system:masters"),), (("commonName", "api-server"),)),
        "subjectAltName": (("DNS", "api.example.com"), ("IP Address", "10.0.0.1"), ("URI", "spiffe://cluster/api")),
        "notAfter": "Jan  1 00:00:00 2030 GMT",
    }
    ends = ssl.cert_time_to_seconds("Jan  1 00:00:00 2030 GMT")
    assert tls.names_of(certificate, ends - 1) == {"api-server", "api.example.com", "spiffe://cluster/api"}
    assert tls.names_of(certificate, ends) == set(), "a connection can outlive its certificate"
    assert tls.names_of({}) == set()


def test_client_certificates_need_names_a_ca_and_our_own_tls(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    crt, key = authority.issue("server")
    own, names = {"tls_certificate": crt, "tls_key": key}, {"admission_client_names": ("api-server",)}
    for settings in (
        Settings(**own, admission_client_ca=authority.file),
        Settings(**own, **names),
        Settings(**names, admission_client_ca=authority.file),
        Settings(**own, **names, admission_client_ca=key),
        Settings(**own, **names, admission_client_ca=tmp_path / "none"),
    ):
        with pytest.raises(UsageError) as refused:
            tls.of_settings(settings)
        assert refused.value.hint
    found = tls.of_settings(Settings(**own, **names, admission_client_ca=authority.file))
    assert found is not None
    assert found.context.verify_mode is ssl.CERT_OPTIONAL


SERVE = """
import socket, sys
from pathlib import Path
from web import server
from web.tls import Certificate
server._HANDSHAKE_SECONDS = 0.5
listening = socket.create_server(("127.0.0.1", 0))
answer = lambda environ, start: start("204 No Content", []) and []
tell = lambda: print(listening.getsockname()[1], flush=True)
server.serve(answer, listening, tell, Certificate(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_a_tls_handshake_that_does_not_come_ends_the_connection(tmp_path: Path) -> None:
    """Connections are counted after the handshake: silent ones had a minute each to take every file descriptor."""
    crt, key = Authority.make(tmp_path).issue("server")
    with subprocess.Popen([sys.executable, "-c", SERVE, crt, key], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            address = ("127.0.0.1", int(process.stdout.readline()))
            with socket.create_connection(address, timeout=50) as silent:
                assert silent.recv(1) == b""
        finally:
            process.kill()
