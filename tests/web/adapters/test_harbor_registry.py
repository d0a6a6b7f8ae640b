"""The Harbor adapter on real parts: ``dockwarden serve``, and a docker-registry behind a token service, as Harbor is.

The client is ``examples/harbor/refused.py``, which behaves as Harbor's.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.servers import Authority, Dockwarden, Registry
from tests.token_services import TokenService

ALLOWED, DENIED = "shop/good", "shop/vulnerable"
ROBOT, SECRET = "robot$scanner", "canary-of-the-robot-account"
SCRIPT = Path(__file__).parents[3] / "examples" / "harbor" / "refused.py"


@dataclass(frozen=True)
class Harbor:
    """A registry with two images, a token service, and a token of Dockwarden's."""

    registry: Registry
    service: TokenService
    server: Dockwarden
    token: str
    digests: dict[str, str]

    def ask(self, image: str, robot: str = f"{ROBOT}:{SECRET}") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "DOCKWARDEN_TOKEN": self.token, "HARBOR_ROBOT": robot}
        command = [sys.executable, str(SCRIPT), self.server.url, f"http://{self.registry.host}", image]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)

    def image(self, name: str) -> str:
        return f"{name}@{self.digests[name]}"


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, server: Dockwarden, sample_layouts: Path
) -> Iterator[Harbor]:
    service = TokenService(authority, {ROBOT: SECRET, "pusher": "pushes"})
    registry = Registry(tmp_path_factory.mktemp("harbor"), token_realm=service.realm, token_root=service.root).start()
    digests = {}
    for name in (ALLOWED, DENIED):
        (entry,) = json.loads((sample_layouts / name / "index.json").read_text())["manifests"]
        tag = entry["annotations"]["org.opencontainers.image.ref.name"]
        registry.push(f"oci:{sample_layouts / name}:{tag}", f"{name}:1", "pusher:pushes")
        digests[name] = entry["digest"]
    added = server.api(
        "POST", "/api/v1/registries", json={"host": registry.host, "insecure": True, "harbor": "findings"}
    )
    assert added.status_code == 201, added.text
    made = server.api("POST", "/api/v1/tokens", json={"name": "harbor", "scopes": ["harbor"]})
    yield Harbor(registry, service, server, made.json()["token"], digests)
    registry.stop()
    service.stop()


def test_an_allowed_and_a_denied_image(lab: Harbor) -> None:
    allowed = lab.ask(lab.image(ALLOWED))
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    denied = lab.ask(lab.image(DENIED))
    assert denied.returncode == 1, denied.stdout + denied.stderr
    assert "DW-denied" in denied.stdout
    assert "CVE-" in denied.stdout


def test_the_metadata_says_how_old_the_advisories_are(lab: Harbor) -> None:
    headers = {"Authorization": f"Bearer {lab.token}"}
    url = f"{lab.server.url}/adapters/harbor/api/v1/metadata"
    answer = httpx.get(url, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    moment = answer.json()["properties"]["harbor.scanner-adapter/vulnerability-database-updated-at"]
    assert datetime.fromisoformat(moment).tzinfo is not None


def test_what_cannot_be_scanned_is_an_error_and_never_a_clean_report(lab: Harbor) -> None:
    for image, robot in (
        (lab.image(DENIED), f"{ROBOT}:wrong"),
        (f"{DENIED}@sha256:{'0' * 64}", f"{ROBOT}:{SECRET}"),
        (f"{DENIED}@latest", f"{ROBOT}:{SECRET}"),
    ):
        done = lab.ask(image, robot)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "the scan failed" in done.stderr


def test_a_bearer_token_pulls_what_it_is_for(lab: Harbor) -> None:
    """Harbor can be told to send one. A token that is for another repository does not pull this one."""
    api = f"{lab.server.url}/adapters/harbor/api/v1"
    headers = {"X-ScannerAdapter-API-Key": lab.token}
    for scope, status in ((f"repository:{ALLOWED}:pull", 200), (f"repository:{DENIED}:pull", 500)):
        order = {
            "registry": {
                "url": f"http://{lab.registry.host}",
                "authorization": f"Bearer {lab.service.token([scope])}",
            },
            "artifact": {"repository": ALLOWED, "digest": lab.digests[ALLOWED]},
        }
        made = httpx.post(f"{api}/scan", json=order, headers=headers, timeout=60, trust_env=False)
        assert made.status_code == 202, made.text
        ends = time.monotonic() + 120
        while True:
            answer = httpx.get(f"{api}/scan/{made.json()['id']}/report", headers=headers, timeout=60, trust_env=False)
            if answer.status_code != 302 or time.monotonic() > ends:
                break
            time.sleep(0.5)
        assert answer.status_code == status, answer.text[:500]


def test_the_robots_secret_is_nowhere_when_its_scans_have_ended(lab: Harbor) -> None:
    assert lab.ask(lab.image(ALLOWED)).returncode == 0
    with sqlite3.connect(f"file:{lab.server.home}/dockwarden.db?mode=ro", uri=True) as database:
        rows = database.execute("SELECT credentials FROM harbor_scan").fetchall()
    assert rows
    assert not any(credentials for (credentials,) in rows)
    for file in (lab.server.home / "log", lab.server.home / "dockwarden.db"):
        assert SECRET.encode() not in file.read_bytes(), file


def test_the_script_says_how_it_is_used() -> None:
    named = ["http://127.0.0.1:1", "https://harbor.example.com", "shop/web:1"]
    for arguments, token, expected in (
        ([], "x", "REPOSITORY@DIGEST"),
        (named, "", "set DOCKWARDEN_TOKEN"),
        (named, "x", "name the digest"),
    ):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *arguments],
            capture_output=True,
            text=True,
            env={"DOCKWARDEN_TOKEN": token},
            timeout=60,
            check=False,
        )
        assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
