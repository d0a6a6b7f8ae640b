"""Posture against real servers: a good registry raises no false alarm, and each bad one is caught at what is bad
about it alone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.errors import RefusedError, RemoteError, UsageError
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from scanner.model.posture import Posture
from scanner.registry import probe
from scanner.registry.auth import Credentials, CredentialStore
from scanner.registry.client import Access
from scanner.scanning import posture
from tests.scanner.registry.test_client import liar
from tests.servers import Authority, Registry, shifted_clock
from tests.tls_servers import OpenSsl, Proxy, ocsp_answer, self_signed

HSTS = "add_header Strict-Transport-Security 'max-age=31536000' always;"
GOOD_TLS = f"ssl_protocols TLSv1.2 TLSv1.3; {HSTS}"
CREDENTIALS = Credentials("ci", Secret("correct horse"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, sample_layouts: Path) -> Iterator[Registry]:
    """A registry behind a password, with an image; only proxies reach it in these tests."""
    made = Registry(tmp_path_factory.mktemp("guarded"), None, "ci", "correct horse").start()
    made.push(f"oci:{sample_layouts / 'shop' / 'good'}:1.4.2", "shop/good:1")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, sample_layouts: Path) -> Iterator[Registry]:
    """A registry that lets everybody do everything, with an image."""
    made = Registry(tmp_path_factory.mktemp("opened")).start()
    made.push(f"oci:{sample_layouts / 'shop' / 'good'}:1.4.2", "shop/good:1")
    yield made
    made.stop()


@contextmanager
def running(server: Any) -> Iterator[Any]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def examine(
    host: str, ca: Path | None = None, *, repository: str = "", insecure: bool = False, known: bool = True
) -> Posture:
    store = CredentialStore(Settings(), {host: CREDENTIALS} if known else {}, personal=False)
    return posture.examine(host, Settings(), store, Access(insecure, ca, named=True), repository)


def by_kind(found: Posture, kind: type) -> set[str]:
    return {result.check.removeprefix("registry-") for result in found.results if isinstance(result.outcome, kind)}


def failed(found: Posture) -> set[str]:
    return by_kind(found, Failed)


def test_a_good_registry_raises_no_alarm(tmp_path: Path, authority: Authority, guarded: Registry) -> None:
    crt, key = authority.issue("good", ("localhost",), days=60)
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, GOOD_TLS)) as server:
        found = examine(server.host, authority.file)
    assert failed(found) == set()
    # Its version is what a docker-registry never tells; a CA without OCSP has nothing to staple; Basic needs no token
    # service.
    assert by_kind(found, Incomplete) == {"version"}
    assert by_kind(found, NotApplicable) == {"ocsp-stapling", "token-realm"}
    assert found.repository == "shop/good", "our credentials were shown a repository to ask about"
    assert {result.check for result in found.results} == set(catalog.registry_checks())


def test_an_expired_certificate(tmp_path: Path, authority: Authority, guarded: Registry) -> None:
    crt, key = authority.issue("expired", ("localhost",), days=-3)
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, GOOD_TLS)) as server:
        found = examine(server.host, authority.file)
    assert failed(found) == {"certificate-expiry"}
    assert by_kind(found, Incomplete) == {"version", "digest"}, "no password goes over TLS that cannot be trusted"


def test_a_self_signed_certificate(tmp_path: Path, guarded: Registry) -> None:
    crt, key = self_signed(tmp_path)
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, GOOD_TLS)) as server:
        assert failed(examine(server.host)) == {"certificate-trust"}
        assert failed(examine(server.host, crt)) == set(), "given as a CA it vouches for itself"


def test_a_private_ca_that_was_not_given(tmp_path: Path, authority: Authority, guarded: Registry) -> None:
    crt, key = authority.issue("private", ("localhost",))
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, GOOD_TLS)) as server:
        assert failed(examine(server.host)) == {"certificate-trust"}


def test_a_certificate_of_another_host(tmp_path: Path, authority: Authority, guarded: Registry) -> None:
    crt, key = authority.issue("wrong", ("other.example.com",))
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, GOOD_TLS)) as server:
        assert failed(examine(server.host, authority.file)) == {"certificate-name"}


def test_old_tls_is_named_version_by_version(tmp_path: Path, authority: Authority, guarded: Registry) -> None:
    crt, key = authority.issue("old", ("localhost",))
    old = f"ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_ciphers ALL:@SECLEVEL=0; {HSTS}"
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, old)) as server:
        found = examine(server.host, authority.file)
    assert "tls-version" in failed(found)
    assert messages(found, "registry-tls-version") == ["the registry accepts TLS 1.0", "the registry accepts TLS 1.1"]


def test_tls_1_0_alone(tmp_path: Path, authority: Authority) -> None:
    crt, key = authority.issue("tls10", ("localhost",))
    with running(OpenSsl(tmp_path / "s", crt, key, ("-tls1", "-cipher", "ALL:@SECLEVEL=0"))) as server:
        found = examine(server.host, authority.file, known=False)
    assert messages(found, "registry-tls-version") == ["the registry accepts TLS 1.0"]
    assert "certificate-trust" in by_kind(found, Passed), "old TLS does not keep us from seeing the certificate"


def test_tls_1_3_alone(tmp_path: Path, authority: Authority, guarded: Registry) -> None:
    crt, key = authority.issue("tls13", ("localhost",))
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, f"ssl_protocols TLSv1.3; {HSTS}")) as server:
        found = examine(server.host, authority.file)
    assert failed(found) == set()
    (tls_version,) = [r.outcome for r in found.results if r.check == "registry-tls-version"]
    assert isinstance(tls_version, Passed)
    assert [e.name for e in tls_version.tolerated] == ["TLS 1.3"]


@pytest.mark.parametrize(
    ("cipher", "options", "name"),
    [
        ("NULL-SHA256:@SECLEVEL=0", ("-tls1_2",), "NULL"),
        ("ADH-AES128-SHA256:@SECLEVEL=0", ("-tls1_2",), "anonymous"),
    ],
)
def test_weak_ciphers(tmp_path: Path, cipher: str, options: tuple[str, ...], name: str) -> None:
    crt, key = self_signed(tmp_path, "-newkey", "rsa:2048")
    with running(OpenSsl(tmp_path / "s", crt, key, (*options, "-cipher", cipher))) as server:
        found = examine(server.host, known=False)
    (message,) = messages(found, "registry-tls-ciphers")
    assert name in message


def test_a_small_key_and_an_old_signature(tmp_path: Path, guarded: Registry) -> None:
    crt, key = self_signed(tmp_path, "-newkey", "rsa:1024", "-sha1")
    weak = f"ssl_protocols TLSv1.2; ssl_ciphers ALL:@SECLEVEL=0; {HSTS}"
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, weak)) as server:
        found = examine(server.host, crt, known=False)
    assert failed(found) >= {"certificate-key", "certificate-signature"}


def test_no_hsts(tmp_path: Path, authority: Authority, guarded: Registry) -> None:
    crt, key = authority.issue("bare", ("localhost",))
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host)) as server:
        assert failed(examine(server.host, authority.file)) == {"hsts"}


@pytest.mark.parametrize("staples", [True, False])
def test_a_stapled_answer(tmp_path: Path, guarded: Registry, staples: bool) -> None:
    crt, key = self_signed(
        tmp_path, "-newkey", "rsa:2048", "-addext", "authorityInfoAccess=OCSP;URI:http://ocsp.invalid/"
    )
    staple = f"ssl_stapling on; ssl_stapling_file {ocsp_answer(tmp_path, crt, key)};" if staples else ""
    with running(Proxy(tmp_path / "nginx", crt, key, guarded.host, GOOD_TLS + staple)) as server:
        assert failed(examine(server.host, crt)) == (set() if staples else {"ocsp-stapling"})


def test_a_registry_with_its_own_tls_and_a_password(registry: Registry, authority: Authority) -> None:
    found = examine(registry.host, authority.file)
    assert failed(found) == set()


def test_anonymous_access_over_good_tls(tmp_path: Path, authority: Authority, opened: Registry) -> None:
    crt, key = authority.issue("opened", ("localhost",))
    with running(Proxy(tmp_path / "nginx", crt, key, opened.host, GOOD_TLS)) as server:
        found = examine(server.host, authority.file, known=False)
    assert failed(found) == {"anonymous-catalog", "anonymous-pull", "anonymous-push", "anonymous-delete"}
    assert by_kind(found, Incomplete) == {"version"}
    assert found.repository == "shop/good"


def test_plain_http_and_a_password(guarded: Registry) -> None:
    found = examine(guarded.host, insecure=True)
    assert failed(found) == {"plain-http", "tls-version", "tls-ciphers", "certificate-trust", "basic-over-http"}


def test_nothing_is_left_behind_and_nothing_is_taken_away(opened: Registry) -> None:
    def blobs() -> set[Path]:
        return {
            path.relative_to(opened.directory) for path in (opened.directory / "data").rglob("data") if path.is_file()
        }

    def links() -> set[Path]:
        return {path.relative_to(opened.directory) for path in (opened.directory / "data").rglob("link")}

    before = blobs(), links()
    assert "anonymous-push" in failed(examine(opened.host, insecure=True, known=False))
    assert (blobs(), links()) == before
    assert not list((opened.directory / "data").rglob("startedat")), "the upload was cancelled"


def test_a_password_is_asked_for_nowhere_else(guarded: Registry, tmp_path: Path, authority: Authority) -> None:
    """Credentials go to the registry itself and only over TLS that is trusted: not to whoever has taken its place."""
    with liar(lambda h: h.give(401, WWW_Authenticate='Basic realm="x"')) as there:
        store = CredentialStore(Settings(), {there.host: CREDENTIALS}, personal=False)
        posture.examine(there.host, Settings(), store, Access(named=True))
        assert {authorization for _, authorization in there.seen} == {None}


def test_a_registry_that_serves_what_nothing_can_be() -> None:
    with liar(lambda h: h.give(body=b"anything", content_type="application/octet-stream")) as there:
        found = examine(there.host, insecure=True, known=False)
    assert "digest" in failed(found)


def test_a_registry_that_serves_another_manifest_under_its_digest() -> None:
    answers = iter(range(1000))

    def answer(h: Any) -> None:
        if h.path.startswith("/v2/_catalog"):
            h.give(body=b'{"repositories": ["shop/app"]}')
        elif "tags/list" in h.path:
            h.give(body=b'{"tags": ["1"]}')
        elif "/manifests/1" in h.path or ("/manifests/sha256:" in h.path and "0" * 64 not in h.path):
            h.give(body=json.dumps({"schemaVersion": 2, "n": next(answers)}).encode())
        else:
            h.give(404 if "0" * 64 in h.path else 200)

    with liar(answer) as there:
        found = examine(there.host, insecure=True, known=False)
    (message,) = messages(found, "registry-digest")
    assert "sent content that does not match sha256:" in message


def test_a_token_service_that_is_somebody_elses() -> None:
    realm = 'Bearer realm="http://elsewhere.invalid/token",service="s"'
    with liar(lambda h: h.give(401, WWW_Authenticate=realm)) as there:
        found = examine(there.host, insecure=True, known=False)
    assert len(messages(found, "registry-token-realm")) == 2
    unknown = by_kind(found, Incomplete)
    assert {"anonymous-catalog", "anonymous-pull", "anonymous-push", "anonymous-delete"} <= unknown, (
        "the token service is not there to ask"
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x16\x03\x01",
        b"\x15\x03\x01\x00\x02\x02",
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x03\xff\xff" + b"x" * 70_000,
        b"HTTP/1.1 999 \r\n\r\n",
    ],
)
def test_who_is_no_registry_has_no_good_posture(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(2)
                        connection.recv(4096)
                        connection.sendall(answer)
                except OSError:
                    if server.fileno() < 0:
                        return

        threading.Thread(target=serve, daemon=True).start()
        found = examine(f"127.0.0.1:{server.getsockname()[1]}", known=False)
        server.shutdown(socket.SHUT_RDWR)
    serious = {"digest", "anonymous-pull", "anonymous-push", "anonymous-delete", "tls-version", "certificate-trust"}
    assert not serious & by_kind(found, Passed)


def test_a_server_that_says_nothing_costs_its_time_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        facts = probe.probe(
            host, Settings(), CredentialStore(Settings(), personal=False), Access(named=True), seconds=1.0
        )
    found = posture.judge(facts)
    assert by_kind(found, Passed) == set()
    assert failed(found) == set()


def test_nobody_there_refused_and_no_ca() -> None:
    with pytest.raises(RemoteError):
        examine("127.0.0.1:1")
    with pytest.raises(RemoteError):
        examine("nosuch.invalid")
    with pytest.raises(UsageError):
        examine("127.0.0.1:1", Path("/nosuch.pem"))
    with pytest.raises(RefusedError):
        posture.examine("169.254.169.254", Settings(), CredentialStore(Settings(), personal=False), Access())


def test_what_is_remembered_and_for_how_long(tmp_path: Path, guarded: Registry) -> None:
    store = CredentialStore(Settings(), personal=False)
    access = Access(insecure=True, named=True)
    fresh = Settings(home=tmp_path)
    first = posture.cached_posture(fresh)(guarded.host, "shop/good", access, store)
    assert posture.cached_posture(fresh)(guarded.host, "shop/good", access, store) == first
    old = Settings(home=tmp_path, posture_max_age_hours=0)
    assert posture.cached_posture(old)(guarded.host, "shop/good", access, store).checked_at > first.checked_at
    (file,) = (tmp_path / "posture").iterdir()
    file.write_text("{")
    assert failed(posture.cached_posture(fresh)(guarded.host, "shop/good", access, store)) == failed(first)


def test_who_is_not_there_is_unknown_and_asked_again(tmp_path: Path) -> None:
    store = CredentialStore(Settings(), personal=False)
    found = posture.cached_posture(Settings(home=tmp_path))("127.0.0.1:1", "x", Access(named=True), store)
    assert by_kind(found, Incomplete) == {
        identifier.removeprefix("registry-") for identifier in catalog.registry_checks()
    }
    assert not (tmp_path / "posture").exists()


def messages(found: Posture, check: str) -> list[str]:
    (outcome,) = [result.outcome for result in found.results if result.check == check]
    assert isinstance(outcome, Failed), outcome
    return [evidence.message for evidence in outcome.evidence]


def command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = {"HOME": str(tmp_path), "DOCKWARDEN_HOME": str(tmp_path / "home")}
    environment = {"PATH": os.environ["PATH"], **home, **shifted_clock()}
    line = [sys.executable, "-m", "scanner.cli", "registry", "check", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command(tmp_path: Path, registry: Registry, authority: Authority, opened: Registry) -> None:
    good = command(tmp_path, registry.host, "--ca-file", str(authority.file))
    assert good.returncode == 3, good.stdout + good.stderr
    assert "give --repository" in good.stdout
    bad = command(tmp_path, opened.host, "--insecure-registry", opened.host, "--format", "json")
    assert bad.returncode == 1, bad.stderr
    document = json.loads(bad.stdout)
    assert document["schema"] == "dockwarden/posture/1"
    (push,) = [r for r in document["results"] if r["check"] == "registry-anonymous-push"]
    assert (push["outcome"]["kind"], push["severity"], bool(push["remedy"])) == ("failed", "critical", True)
    assert "correct horse" not in bad.stdout + bad.stderr + good.stdout + good.stderr
    for wrong in (("https://x",), (), ("127.0.0.1:1", "--ca-file", "/nosuch"), ("127.0.0.1:1", "--repository", "A")):
        done = command(tmp_path, *wrong)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines()) <= 3) == (2, "", True), done.stderr
    assert command(tmp_path, "127.0.0.1:1").returncode == 3
