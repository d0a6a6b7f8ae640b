"""``dockwarden receipt`` against a real server and registry: what a person types, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from scanner.config import Settings
from tests.servers import Dockwarden, Registry
from tests.test_end_to_end import dockwarden


def test_a_receipt_is_created_and_verified(
    server: Dockwarden, plain_registry: Registry, sample_layouts: Path, tmp_path: Path
) -> None:
    server.api("POST", "/api/v1/registries", json={"host": plain_registry.host, "insecure": True})  # or it is there
    settings = Settings(home=tmp_path / "home")
    keys = tmp_path / "keys.pem"
    keys.write_text(server.api("GET", "/api/v1/receipts/keys.pem").text)
    for name, tag, code, result in (("good", "1.4.2", 0, "PASSED"), ("vulnerable", "1.4.1", 1, "FAILED")):
        plain_registry.push(f"oci:{sample_layouts / 'shop' / name}:{tag}", f"receipt-command/{name}:1")
        image = f"{plain_registry.host}/receipt-command/{name}:1"
        file = tmp_path / f"{name}.json"
        asking = ("--server", server.url, "--token", server.token, "--environment", "shop", "-o", str(file))
        made = dockwarden(settings, "receipt", "create", image, *asking, "--format", "bundle")
        assert made.returncode == code, made.stderr
        assert result in made.stderr
        assert json.loads(file.read_text())["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
        read = dockwarden(settings, "receipt", "verify", str(file), "--key", str(keys), "--environment", "shop")
        assert read.returncode == code, read.stdout + read.stderr
        assert read.stdout.startswith(result)
    other = dockwarden(settings, "receipt", "verify", str(file), "--key", str(keys), "--format", "json")
    assert other.returncode == 1
    assert json.loads(other.stdout)["reason"] == "environment"
    missing = dockwarden(settings, "receipt", "verify", str(tmp_path / "none.json"), "--key", str(keys))
    assert missing.returncode == 2
    assert "there is no file" in missing.stderr
