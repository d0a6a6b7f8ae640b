"""Secrets stay where they were put: every secret field holds a word that is nowhere else, everything is used once,
then all that a service prints, stores, sends and runs is searched for these words.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import redis

from scanner.advisories import database
from scanner.config import Settings, load
from scanner.model.access import SCOPES
from tests.identity_provider import CLIENT
from tests.servers import (
    Authority,
    Dockwarden,
    Registry,
    end,
    free_port,
    need,
    real_clock,
    shifted_clock,
    spawn,
    wait_for,
)
from tests.test_end_to_end import _await, dockwarden
from web import oidc

PAGES = (
    "/overview",
    "/images",
    "/scans",
    "/policies",
    "/registries",
    "/events",
    "/audit-log",
    "/vulnerabilities",
    "/exemptions",
    "/sign-in",
    "/metrics",
    "/readyz",
    "/no/such/page",
)


def canary(name: str) -> str:
    return f"canary-{name}-{secrets.token_hex(12)}"


@dataclass
class Secrets:
    """What must not show, by where it was put."""

    registry: str = field(default_factory=lambda: canary("registry"))
    wrong: str = field(default_factory=lambda: canary("wrong"))
    user: str = field(default_factory=lambda: canary("user"))
    client: str = field(default_factory=lambda: canary("client"))
    key: str = field(default_factory=lambda: canary("key") + "-long-enough")
    audit: str = field(default_factory=lambda: canary("audit") + "-long-enough")
    robot: str = field(default_factory=lambda: canary("robot"))
    more: dict[str, str] = field(default_factory=dict)

    def all(self) -> dict[str, str]:
        return {**{k: v for k, v in vars(self).items() if isinstance(v, str)}, **self.more}


@contextmanager
def broker(home: Path) -> Iterator[redis.Redis]:
    """A Redis of the test's own, which keeps all that it is sent in a file."""
    port = free_port()
    command = [
        need("redis-server", "redis-server"),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(home),
        "--appendonly",
        "yes",
    ]
    with real_clock():  # Redis never listens with libfaketime
        process = spawn(command, home / "redis.log")
    client = redis.Redis(port=port)
    wait_for(lambda: _pings(client), "redis-server", home / "redis.log")
    yield client
    end(process)


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def hidden() -> Secrets:
    return Secrets()


@pytest.fixture
def serving(hidden: Secrets, tmp_path: Path, sample_layouts: Path) -> Iterator[Dockwarden]:
    """A server in its distributed form that logs all there is to log; its secrets are in a file, as they are in
    production.
    """
    home, port = tmp_path / "home", free_port()
    (tmp_path / "redis").mkdir()
    database.import_file(Settings(home=home), sample_layouts / "advisories")
    with broker(tmp_path / "redis") as client:
        settings = tmp_path / "secret-settings.toml"
        settings.write_text(
            f"home = '{home}'\nport = {port}\nlog_level = 'DEBUG'\nrate_limits = false\n"
            f"broker_url = 'redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0'\n"
            f"secret_key = '{hidden.key}'\naudit_key = '{hidden.audit}'\n"
            f"oidc_issuer = 'http://127.0.0.1:9'\noidc_client_id = '{CLIENT}'\noidc_client_secret = '{hidden.client}'\n"
        )
        given = Settings(home=home)
        for command in (["db", "upgrade"], ["user", "add", "ada", "--role", "admin"]):
            done = dockwarden(given, *command, DOCKWARDEN_CONFIG=str(settings), DOCKWARDEN_PASSWORD=hidden.user)
            assert done.returncode == 0, done.stderr
        token = dockwarden(
            given, "token", "create", "t", *[f"--scope={s}" for s in SCOPES], DOCKWARDEN_CONFIG=str(settings)
        )
        hidden.more["token"] = token.stdout.strip()
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "DOCKWARDEN_CONFIG": str(settings),
            "HOME": str(home),
            **shifted_clock(),
        }
        process = spawn([sys.executable, "-m", "scanner.cli", "serve"], tmp_path / "server.log", environment)
        running = Dockwarden(f"http://127.0.0.1:{port}", hidden.more["token"], home)
        wait_for(lambda: _answers(running), "dockwarden serve", tmp_path / "server.log", 90)
        yield running
        process.terminate()
        try:
            process.wait(20)
        finally:
            end(process)


def _answers(server: Dockwarden) -> bool:
    try:
        return server.api("GET", "/readyz").status_code == 200
    except httpx.HTTPError:
        return False


class Watch(threading.Thread):
    """Looks at the command line and the environment of every process on the machine, as anybody who is signed in
    there can.
    """

    def __init__(self, words: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.words, self.seen, self.over = words, set[str](), threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            for name in os.listdir("/proc"):
                if name.isdigit():
                    self._look(Path("/proc", name, "cmdline"))
                    self._look(Path("/proc", name, "environ"))
            self.over.wait(0.05)

    def _look(self, place: Path) -> None:
        try:
            data = place.read_bytes()
        except OSError:  # it has ended, or is none of ours
            return
        self.seen |= {
            f"{name} in {place.name} of {data[:60]!r}" for name, word in self.words.items() if word.encode() in data
        }


def test_no_secret_is_printed_stored_sent_or_shown(
    serving: Dockwarden, hidden: Secrets, authority: Authority, sample_layouts: Path, tmp_path: Path
) -> None:
    # skopeo, which pushes, is given that one.
    watch = Watch({name: word for name, word in hidden.all().items() if name != "registry"})
    watch.start()
    answers = [_use(serving, hidden, authority, sample_layouts, tmp_path)]
    watch.over.set()
    watch.join()
    assert watch.seen == set()
    places = {
        "answers and pages": "\n".join(answers).encode(),
        **{str(file): file.read_bytes() for file in _files(tmp_path) if "secret-settings" not in file.name},
    }
    assert any("server.log" in place for place in places)
    assert any("appendonly" in place for place in places)
    assert any("dockwarden.db" in place for place in places)
    shown = {
        f"{name} in {place}"
        for place, data in places.items()
        for name, word in hidden.all().items()
        if word.encode() in data
    }
    assert shown == set()


def _files(base: Path) -> list[Path]:
    """All that server, broker and database have written; not what the registry of the test was told."""
    return [file for file in base.rglob("*") if file.is_file() and "registry" not in file.relative_to(base).parts[0]]


def _use(server: Dockwarden, hidden: Secrets, authority: Authority, layouts: Path, base: Path) -> str:
    """Everything once: credentials that are right and wrong, a webhook, scans, the gate, pages, errors.

    Returns what was answered.
    """
    said: list[str] = []

    def call(method: str, path: str, **more: object) -> httpx.Response:
        answer = server.api(method, path, **more)
        said.append(answer.text + str(answer.headers))
        return answer

    registry = Registry(base / "registry", authority, "ci", hidden.registry)
    registry.port = free_port()
    ca = authority.file.read_text()
    added = call(
        "POST",
        "/api/v1/registries",
        json={"host": registry.host, "username": "ci", "password": hidden.registry, "ca_pem": ca},
    )
    assert added.status_code == 201, added.text
    hook = server.api("POST", "/api/v1/webhooks", json={"registry": added.json()["id"]}).json()
    hidden.more["webhook"] = hook["secret"]
    registry.notifications = [{"url": hook["url"], "authorization": f"Bearer {hook['secret']}"}]
    registry.start()
    try:
        registry.push(f"oci:{layouts / 'shop/vulnerable'}:1.4.1", "shop/vulnerable:1.4.1")
        item = _await(server, "shop/vulnerable")
        call("POST", "/api/v1/gate", json={"image": f"{registry.host}/shop/vulnerable:1.4.1", "wait_seconds": 60})
        call("PATCH", f"/api/v1/registries/{added.json()['id']}", json={"password": hidden.wrong})
        refused = call("POST", "/api/v1/scans", json={"image": f"{registry.host}/shop/other:1"}).json()
        _until_it_ends(server, refused["id"])
        for name in ("", f"/{refused['id']}"):
            call("GET", f"/api/v1/scans{name}")
        _scan_as_harbor(server, hidden, call, f"{added.json()['id']}", registry.host, str(item["digest"]))
    finally:
        registry.stop()
    for path in ("/findings", "/report", "/decisions", ""):
        call("GET", f"/api/v1/images/{item['digest']}{path}")
    for path in ("registries", "webhooks", "tokens", "users", "audit-log", "events", "audit-log/export", "account"):
        call("GET", f"/api/v1/{path}")
    for path in (*PAGES, f"/images/{item['digest']}", f"/scans/{refused['id']}"):
        said.append(_page(server, path))
    call("POST", "/api/v1/users", json={"name": "eve", "password": hidden.user, "role": "nobody"})
    call("POST", "/api/v1/registries", json={"host": "not a host", "password": hidden.registry})
    call("POST", "/api/v1/registries", content=json.dumps({"password": hidden.registry})[:-1])
    same = {"Sec-Fetch-Site": "same-origin"}
    for form in (
        {"name": "ada", "password": hidden.user},
        {"name": "ada", "password": hidden.wrong},
        {"token": hidden.wrong},
    ):
        answer = httpx.post(f"{server.url}/sign-in", data=form, headers=same, trust_env=False)
        said.append(answer.text)
    said.append(httpx.get(f"{server.url}/sign-in/oidc", trust_env=False).text)
    with pytest.raises(Exception) as broken:
        oidc.make(load({"DOCKWARDEN_OIDC_ISSUER": "x", "DOCKWARDEN_OIDC_CLIENT_SECRET": hidden.client}))
    said.append(repr(broken.value) + repr(load({"DOCKWARDEN_OIDC_CLIENT_SECRET": hidden.client})))
    return "\n".join(said)


def _scan_as_harbor(
    server: Dockwarden, hidden: Secrets, call: Callable[..., httpx.Response], registry: str, host: str, digest: str
) -> None:
    """A scan with the credentials of a robot account, which the registry refuses; and a request that is refused."""
    call("PATCH", f"/api/v1/registries/{registry}", json={"harbor": "findings"})
    encoded = base64.b64encode(f"robot:{hidden.robot}".encode()).decode()
    hidden.more["robot encoded"] = encoded
    for url, status in ((f"https://{host}", 202), (f"https://robot:{hidden.robot}@{host}", 422)):
        order = {
            "registry": {"url": url, "authorization": f"Basic {encoded}"},
            "artifact": {"repository": "shop/vulnerable", "digest": digest},
        }
        answer = call("POST", "/adapters/harbor/api/v1/scan", json=order)
        assert answer.status_code == status, answer.text
        if status == 202:
            _until_it_ends(server, answer.json()["id"])
            assert call("GET", f"/adapters/harbor/api/v1/scan/{answer.json()['id']}/report").status_code in (302, 500)


def _page(server: Dockwarden, path: str) -> str:
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "text/html"}
    return httpx.get(server.url + path, headers=headers, trust_env=False, timeout=30).text


def _until_it_ends(server: Dockwarden, scan_id: str) -> None:
    for _ in range(200):
        state = server.api("GET", f"/api/v1/scans/{scan_id}").json()["state"]
        if state in ("failed", "dead", "done", "retry_wait"):
            return
        time.sleep(0.2)
    pytest.fail("the scan never ended")
