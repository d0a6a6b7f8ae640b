"""``dockwarden query``: who has a package, asked of a real server."""

from __future__ import annotations

import json

import pytest

from scanner.config import Settings
from tests.servers import Dockwarden, Registry
from tests.test_end_to_end import dockwarden


@pytest.fixture(scope="module")
def scanned(server: Dockwarden, plain_registry: Registry, sample_layouts: object) -> str:
    server.api("POST", "/api/v1/registries", json={"host": plain_registry.host, "insecure": True})
    plain_registry.push(f"oci:{sample_layouts}/shop/vulnerable:1.4.1", "query/vulnerable:1")
    image = f"{plain_registry.host}/query/vulnerable:1"
    assert server.api("POST", "/api/v1/gate", json={"image": image, "wait_seconds": 120}).status_code == 200
    return image


def test_who_has_a_package(settings: Settings, server: Dockwarden, scanned: str) -> None:
    where = {"DOCKWARDEN_SERVER": server.url, "DOCKWARDEN_TOKEN": server.token}
    done = dockwarden(settings, "query", "libssl@<99", "--format", "json", **where)
    assert done.returncode == 0, done.stderr
    assert scanned in {f"{row['repository']}:{row['tag']}" for row in json.loads(done.stdout)["items"]}
    shown = dockwarden(settings, "query", "libssl3", **where)
    assert f"  {scanned}  deny" in shown.stdout
    nothing = dockwarden(settings, "query", "left-pad", **where)
    assert (nothing.returncode, "No scanned image" in nothing.stdout) == (0, True)


@pytest.mark.parametrize("package", ["", "log4j@", "log4j@~>2", " ", "a@b@c"])
def test_what_is_no_package_is_named(settings: Settings, package: str) -> None:
    done = dockwarden(settings, "query", package, "--server", "http://127.0.0.1:9")
    assert done.returncode == 2, done.stderr
