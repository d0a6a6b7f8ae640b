"""The Docker authorization plugin on a real engine: what is denied is not created, not started and not pulled."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scanner.commands._client import Client
from scanner.commands._engine_gate import EngineGate, Options
from scanner.commands.docker_authz import questions_to
from scanner.config import Secret
from tests.docker_engines import ROOT, GuardedEngine
from tests.scanner.commands.test_docker_authz import why
from tests.servers import Authority, Dockwarden, Registry
from tests.tls_servers import Proxy

DENIED = "authorization denied by plugin"
POLICY = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: engines}
match: {environments: [engines]}
advisories: {max_age: 5200w}
rules:
  - {id: no-criticals, vulnerability: {severity: [critical]}, action: deny}
  - {id: not-privileged, check: privileged-container, action: deny}
"""


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory, server: Dockwarden, plain_registry: Registry, sample_layouts: Path
) -> Iterator[GuardedEngine]:
    answer = server.api("POST", "/api/v1/registries", json={"host": plain_registry.host, "insecure": True})
    assert answer.status_code in (201, 409), answer.text
    answer = server.api("PUT", "/api/v1/policies/engines", json={"text": POLICY})
    assert answer.status_code in (200, 201), answer.text
    for name, tag in (("good", "1.4.2"), ("vulnerable", "1.4.1")):
        plain_registry.push(f"oci:{sample_layouts / 'shop' / name}:{tag}", f"engines/{name}:1")
        image = f"{plain_registry.host}/engines/{name}:1"
        decided = server.api("POST", "/api/v1/gate", json={"image": image, "wait_seconds": 60})
        assert decided.status_code == 200, decided.text
    token = server.api("POST", "/api/v1/tokens", json={"name": "engine", "scopes": ["admission"]}).json()["token"]
    guarded = GuardedEngine(tmp_path_factory.mktemp("guarded"), server, token, "engines")
    with guarded.running():
        yield guarded


@pytest.fixture(scope="module")
def good(engine: GuardedEngine, plain_registry: Registry) -> str:
    """An allowed image, pulled."""
    image = f"{plain_registry.host}/engines/good:1"
    ends = time.monotonic() + 60
    while (done := engine.docker("pull", image)).returncode and time.monotonic() < ends:
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    return image


@pytest.fixture
def bad(plain_registry: Registry) -> str:
    return f"{plain_registry.host}/engines/vulnerable:1"


def test_a_denied_image_is_not_pulled_and_the_person_is_told_why(engine: GuardedEngine, bad: str) -> None:
    done = engine.docker("pull", bad)
    assert done.returncode != 0
    assert DENIED in done.stderr
    assert "denied by policy engines" in done.stderr
    assert "CVE-" in done.stderr


def test_an_allowed_image_is_created_and_started(engine: GuardedEngine, good: str) -> None:
    done = engine.docker("create", "--network=none", "--name=allowed", good, "/app")
    assert done.returncode == 0, done.stderr
    assert DENIED not in engine.docker("start", "allowed").stderr, "the sample has nothing to run, but it may"
    assert "allowed: " in engine.run(str(ROOT / "examples/docker/refused.sh"), good, "--network=none").stdout


def test_how_it_is_run_is_judged(engine: GuardedEngine, good: str) -> None:
    done = engine.run(str(ROOT / "examples/docker/refused.sh"), good, "--network=none", "--privileged")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "privileged" in done.stdout
    inside = engine.docker("exec", "--privileged", "allowed", "id")
    assert "privileged exec" in inside.stderr


def test_a_denied_image_that_is_here_already_is_neither_created_nor_started(
    engine: GuardedEngine, plain_registry: Registry, good: str, bad: str
) -> None:
    engine.stop_plugin()
    engine.start_plugin("--environment", "before")  # an environment whose policies allow it
    try:
        made = engine.server.api("PUT", "/api/v1/policies/before", json={"text": ALLOWING})
        assert made.status_code in (200, 201), made.text
        until_allowed(engine, "pull", bad)
        until_allowed(engine, "create", "--network=none", "--name=denied", bad, "/app")
        assert engine.docker("tag", bad, "innocent:1").returncode == 0
    finally:
        engine.stop_plugin()
        engine.start_plugin()
    identifier = engine.docker("image", "inspect", "--format", "{{.Id}}", bad).stdout.strip()
    for name in (bad, "innocent:1", identifier, identifier.removeprefix("sha256:")[:12]):
        done = engine.docker("create", "--network=none", name, "/app")
        assert DENIED in done.stderr, name
        assert "denied by policy" in done.stderr, name
    assert "denied by policy" in engine.docker("start", "denied").stderr
    assert "denied by policy" in engine.docker("restart", "denied").stderr


ALLOWING = POLICY.replace("engines", "before").replace("action: deny", "action: warn")


def until_allowed(engine: GuardedEngine, *arguments: str) -> None:
    ends = time.monotonic() + 60
    while (done := engine.docker(*arguments)).returncode and time.monotonic() < ends:
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr


def test_requests_that_would_slip_past(engine: GuardedEngine, good: str, bad: str) -> None:
    """As an attacker writes them, on the engine's own socket."""
    body = json.dumps({"Image": bad, "Cmd": ["/app"], "HostConfig": {"NetworkMode": "none"}}).encode()
    kind = {"Content-Type": "application/json"}
    attempts: list[tuple[str, bytes, dict[str, str]]] = [
        ("/v1.41/containers/create", body, kind),
        ("/containers/create", body, kind),
        ("/v1.24/containers/create?name=x", body, kind),
        ("/v1.41/containers/create", body, {**kind, "Content-Length": "0"}),  # CVE-2024-41110
        ("/v1.41/containers/create", body + b" " * (2 << 20), kind),  # more than the engine passes on
        ("/v1.41/containers/create", body, {"Content-Type": "application/json; charset=utf-8"}),
        ("/v1.41/containers/create", body.replace(b'"Image"', b'"image"'), kind),
        ("//containers/create", body, kind),
        ("/v1.41/containers%2fcreate", body, kind),
        ("/v1.41/images/../containers/create", body, kind),
        ("/v1.41/Containers/create", body, kind),
        ("/v1.41/plugins/pull?remote=vieux/sshfs", b"[]", kind),
        # Members of HostConfig beside the image, which this engine uses.
        ("/v1.41/containers/create", json.dumps({"Image": good, "Privileged": True}).encode(), kind),
        ("/v1.23/containers/allowed/start", json.dumps({"Privileged": True}).encode(), kind),
        ("/v1.41/containers/allowed/start?checkpoint=c", b"", {}),
        (f"/v1.41/images/create?fromImage={good}", f"fromImage={bad}".encode(), {"Content-Type": "text/plain"}),
        ("/v1.41/swarm/init", b'{"ListenAddr": "127.0.0.1:0"}', kind),
    ]
    for path, data, headers in attempts:
        status, text = post(engine, path, data, headers)
        assert status in (301, 400, 403, 404), (path, status, text)
        assert not (status == 201 or '"Id"' in text), path
    listed = engine.docker("ps", "--all", "--format", "{{.Image}}").stdout
    assert listed.count("vulnerable") <= 1, "only the container that was made while it was allowed"


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def post(engine: GuardedEngine, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    connection = _Unix(f"{engine.directory}/engine.sock")
    connection.putrequest("POST", path, skip_accept_encoding=True)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it answered before it had read everything
        connection.send(body)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, text


@pytest.mark.long
def test_without_the_plugin_nothing_starts(engine: GuardedEngine, good: str) -> None:
    engine.stop_plugin()
    try:
        done = engine.docker("create", "--network=none", good, "/app")
        assert done.returncode != 0, "a plugin that does not answer lets nothing through"
    finally:
        engine.start_plugin()


def test_behind_a_server_that_is_not_authentic_or_gone_only_known_answers_count(
    engine: GuardedEngine, plain_registry: Registry, authority: Authority, tmp_path: Path
) -> None:
    """A certificate that has expired is no server: what was allowed stays allowed for the grace, all else is denied."""
    known, unknown = (f"{plain_registry.host}/engines/good{suffix}" for suffix in (":1", "@sha256:" + "7" * 64))
    certificate, key = authority.issue("door")
    proxy = Proxy(tmp_path / "tls", certificate, key, engine.server.url.removeprefix("http://")).start()
    ask = questions_to(Client(f"https://{proxy.host}", Secret(engine.token), authority.file))
    gate = EngineGate(Options("host-of-the-tests", "engines"), _NoImages(), ask)

    def refused(image: str) -> str:
        document = {"Image": image, "HostConfig": {}}
        return why(gate, "POST", "/containers/create", json.dumps(document).encode())

    try:
        assert refused(known) == ""
        proxy.stop()
        authority.issue("door", days=-1)
        proxy.start()
        assert refused(known) == ""
        assert "cannot be asked" in refused(unknown)
        assert "expired" in refused(unknown)
    finally:
        proxy.stop()
    assert refused(known) == ""
    assert "cannot be asked" in refused(unknown)


class _NoImages:
    """An engine that has no image yet: references are judged as they are."""

    def image(self, name: str) -> None:
        return None

    container = image


def test_the_server_knows_what_was_denied(engine: GuardedEngine, bad: str) -> None:
    engine.docker("pull", bad)
    ends = time.monotonic() + 60
    while not (found := _denials(engine)) and time.monotonic() < ends:
        time.sleep(0.5)
    assert any(each["detail"]["namespace"] == "host-of-the-tests" for each in found)


def _denials(engine: GuardedEngine) -> list[dict[str, Any]]:
    answer = engine.server.api("GET", "/api/v1/audit-log?action=admission.deny")
    found: list[dict[str, Any]] = [each for each in answer.json()["items"] if each["detail"].get("door") == "docker"]
    return found
