"""What we ship is run as we want others to run theirs (CIS Docker 1.6 section 5, as far as a compose file can say)."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DOCUMENT = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z./]+:\d+\.\d+\.\d+|[a-z]+:\d+\.\d+(\.\d+)?-bookworm", service["image"]), (
        "CIS 5.28: an exact version"
    )
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), "CIS 4.1: a non-root numeric user"
    assert service["read_only"] is True, "CIS 5.13"
    assert service["cap_drop"] == ["ALL"], "CIS 5.4"
    assert "no-new-privileges:true" in service["security_opt"], "CIS 5.26"
    assert service["mem_limit"], "CIS 5.11"
    assert service["cpus"], "CIS 5.12"
    assert service["pids_limit"], "CIS 5.29"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), "CIS 5.27"
    assert not service.get("privileged")
    assert "network_mode" not in service
    for volume in service.get("volumes", []):
        assert volume.partition(":")[0] in DOCUMENT["volumes"], "a named volume, never the host's files"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "CIS 5.14"


def test_what_it_is_for() -> None:
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert {"web", "worker", "beat", "postgres", "redis", "registry"} <= set(SERVICES)
    assert "/webhooks/distribution" in SERVICES["registry"]["environment"]["REGISTRY_NOTIFICATIONS_ENDPOINTS"]


def test_the_examples_have_no_secret() -> None:
    for line in (ROOT / "examples" / "compose.env").read_text().splitlines():
        assert line.startswith("#") or line.endswith("=replace-me")


def test_the_dockerfile_ends_as_another_user_with_a_healthcheck() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    assert not re.search(r"^FROM \S+:latest|^FROM [^:@\s]+$|^ADD ", text, re.MULTILINE)
    assert "--require-hashes" in text


@pytest.mark.long
def test_the_real_compose_accepts_it(tmp_path: Path) -> None:
    """``docker compose config`` (version 2), which ``.ci/build-part compose`` builds once."""
    found = subprocess.run([ROOT / ".ci/build-part", "compose"], capture_output=True, text=True, check=True)
    program = Path(found.stdout.strip()) / "docker-compose"
    if not program.exists():
        pytest.skip("platform: compose was not built; install Go 1.24 or newer and run .ci/build-part compose")
    names = re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text())
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **dict.fromkeys(names, "a-value-for-tests")}
    command = [program, "-f", ROOT / "compose.yaml", "config", "--format", "json"]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "warn" not in answer.stderr.lower(), answer.stderr
    assert json.loads(answer.stdout)["services"]["worker"]["deploy"]["replicas"] == 2
    missing = subprocess.run(command, capture_output=True, text=True, env={"HOME": str(tmp_path)}, check=False)
    assert missing.returncode != 0
    assert "set it in .env" in missing.stderr
