"""The doors as a stranger sees them: a server that knows no allowed image answers whatever a door is sent.

Nothing is allowed there, so an answer that lets an image in is a find. So is one that is an error of ours: what an API
server, an engine or a proxy makes of a status 500 is their choice.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from scanner import queue
from scanner.commands._engine_gate import EngineGate, Options
from scanner.config import Secret, Settings
from scanner.errors import ScannerError
from scanner.store import accounts, registries
from scanner.store.session import Database
from tests.databases import migrated_url
from web import create_app

_KEY = Secret("a secret key for tests, long enough")
HARBOR = "registry.example.com"
_LISTS = ("containers", "initContainers", "ephemeralContainers")
_STARTS = ("/containers/create", "/services/create", "/images/create", "/start", "/restart", "/swarm/join")


@dataclass(frozen=True)
class Doors:
    client: FlaskClient
    admission: str
    pull: str
    inventory: str
    harbor: str


@cache
def _doors() -> Doors:
    directory = tempfile.TemporaryDirectory(prefix="fuzz-doors-")
    atexit.register(directory.cleanup)
    home = Path(directory.name)
    settings = Settings(
        home=home, secret_key=_KEY, rate_limits=False, admission_wait_seconds=0, pull_wait_seconds=0, log_level="ERROR"
    )
    database = Database(migrated_url("sqlite", home))
    atexit.register(database.engine.dispose)
    with database.session() as session:
        registries.add(session, HARBOR, _KEY, harbor="report")
        admission, pull, inventory, harbor = (
            accounts.create_token(session, scopes[0], scopes, _KEY)[1].reveal()
            for scopes in (("admission",), ("pull",), ("inventory", "read", "manage"), ("harbor",))
        )
    client = create_app(settings, database, queue.make_app(settings)).test_client()
    return Doors(client, admission, pull, inventory, harbor)


def _answered(answer: TestResponse) -> TestResponse:
    assert answer.status_code < 500, answer.text
    return answer


def admit(data: bytes) -> None:
    """An AdmissionReview. Only what starts no container is allowed."""
    doors = _doors()
    answer = _answered(doors.client.post(f"/adapters/kubernetes/admit/{doors.admission}", data=data))
    assert answer.status_code == 200
    response = answer.json["response"]
    assert response["allowed"] is False or not _starts(orjson.loads(data)), response
    pinned = _answered(doors.client.post(f"/adapters/kubernetes/pin/{doors.admission}", data=data))
    assert pinned.status_code == 200
    assert "patch" not in pinned.json["response"], "nothing was judged, so nothing can be pinned"


def _starts(review: Any) -> bool:
    request = review["request"]
    if request["operation"] not in ("CREATE", "UPDATE") or request.get("subResource") in ("scale", "status"):
        return False
    return not isinstance(request.get("oldObject"), dict) and _has_containers(request["object"])


def _has_containers(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_containers, value))
    if not isinstance(value, dict):
        return False
    spec = value.get("spec")
    inside = isinstance(spec, dict) and any(isinstance(spec.get(name), list) and spec[name] for name in _LISTS)
    return inside or any(map(_has_containers, value.values()))


def authorize_engine(data: bytes) -> None:
    """The plugin's question about an engine's request."""
    doors = _doors()
    headers = {"Authorization": f"Bearer {doors.admission}", "Content-Type": "application/json"}
    answer = _answered(doors.client.post("/adapters/docker/authorize", data=data, headers=headers))
    assert answer.status_code != 200 or answer.json["allowed"] is False


def authorize_pull(data: bytes) -> None:
    """A proxy's question: a method, a URI, and further headers, one a line."""
    doors = _doors()
    first, *others = data.decode("latin-1").replace("\r", "").split("\n")
    method, _, uri = first.partition(" ")
    headers = {"X-Original-Method": method, "X-Original-URI": uri}
    headers |= {name: value for name, colon, value in (line.partition(": ") for line in others[:20]) if colon}
    try:
        answer = doors.client.get(f"/adapters/registry/authorize/{doors.pull}", headers=headers)
    except (ValueError, TypeError):  # no HTTP: the client refuses to send such a header
        return
    _answered(answer)
    path = unquote(headers["X-Original-URI"].partition("?")[0]).lower().rstrip("/")
    reads = headers["X-Original-Method"] in ("", "GET", "HEAD")
    names_manifest = path.startswith("/v2/") and path.rpartition("/")[0].endswith("/manifests")
    assert answer.status_code != 200 or not (reads and names_manifest), headers
    _as_envoy(doors, method, uri)


def _as_envoy(doors: Doors, method: str, uri: str) -> None:
    """The same question with the URI in the path, which is unescaped on its way."""
    path = uri.partition("?")[0]
    if method != "GET" or not path.startswith("/") or not (path.isascii() and path.isprintable()) or " " in path:
        return
    answer = _answered(doors.client.get(f"/adapters/registry/authorize/{doors.pull}/{HARBOR}{path}"))
    plain = unquote(path).lower().rstrip("/")
    names_manifest = "/v2/" in plain and plain.rpartition("/")[0].endswith("/manifests")
    assert answer.status_code != 200 or not names_manifest, path


def request_scan(data: bytes) -> None:
    """A scan that a Harbor requests. Only of the registry that was named, and its credentials are told to nobody."""
    doors = _doors()
    headers = {"Authorization": f"Bearer {doors.harbor}", "Content-Type": "application/json"}
    answer = doors.client.post("/adapters/harbor/api/v1/scan", data=data, headers=headers)
    assert answer.status_code in (202, 400, 403, 404, 413, 422, 501), answer.text
    assert "cm9ib3QkczpzZWNyZXQ" not in answer.text, "a request's credentials are not repeated"
    if answer.status_code != 202:
        return
    url = orjson.loads(data)["registry"]["url"].lower().removeprefix("https://").removeprefix("http://").strip("/")
    assert url.partition(":")[0] == HARBOR, url
    found = doors.client.get(f"/adapters/harbor/api/v1/scan/{answer.json['id']}/report", headers=headers)
    assert found.status_code in (302, 500), found.text
    assert found.status_code == 500 or 0 < int(found.headers["Refresh-After"]) < 128


def report_inventory(data: bytes) -> None:
    """A snapshot of workloads. What was accepted is listed, then deleted, so that the same snapshot is read again."""
    doors = _doors()
    headers = {"Authorization": f"Bearer {doors.inventory}", "Content-Type": "application/json"}
    answer = _answered(doors.client.post("/api/v1/inventory", data=data, headers=headers))
    if answer.status_code == 200:
        _answered(doors.client.get("/api/v1/workloads?limit=200", headers=headers))
        gone = doors.client.delete(f"/api/v1/inventory/{answer.json['source']['id']}", headers=headers)
        assert gone.status_code == 204, gone.text


class _Engine:
    """An engine that has nothing."""

    def image(self, name: str) -> None:
        return None

    def container(self, name: str) -> dict[str, Any]:
        return {"Image": "sha256:x", "Name": f"/{name}", "Config": {"Image": "app"}, "HostConfig": {}}

    def volume(self, name: str) -> None:
        return None

    def service(self, name: str) -> None:
        return None


def plugin(data: bytes) -> None:
    """A call as a Docker engine makes it, to a plugin whose server denies everything."""
    gate = EngineGate(Options("host"), _Engine(), lambda question: {"allowed": False, "message": "no"})
    try:
        call = orjson.loads(data)
        if not isinstance(call, dict):
            return
        ask = gate.concerns(call)
    except (orjson.JSONDecodeError, ScannerError):
        return  # denied
    if ask is not None:
        assert gate.decide(ask, "ada"), "allowed"
        return
    path = unquote(str(call["RequestUri"])).partition("?")[0].lower().rstrip("/")
    imports = "fromsrc" in call["RequestUri"].lower()
    reads = call["RequestMethod"] in ("GET", "HEAD", "DELETE", "OPTIONS")
    started = path.endswith(_STARTS) and "/exec/" not in path
    assert reads or imports or not started, json.dumps(call)[:500]
