"""The main path on real parts: a push to a real registry becomes a decision in the API and on the page; every source
tells the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scanner.config import Settings
from scanner.model.reference import Digest
from tests.servers import Authority, Dockwarden, Registry, need


def dockwarden(
    settings: Settings, *arguments: str, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a person runs it. ``stdin`` is piped into it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOCKWARDEN_")}
    variables = {**clean, "DOCKWARDEN_HOME": str(settings.home), **environment}
    command = [sys.executable, "-m", "scanner.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=variables, check=False, input=stdin)


def facts(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What must be the same whichever way the image came."""
    document = json.loads(done.stdout)
    image = document["report"]["images"][0]
    engine = image["engines"][0]
    return {
        "config": image["image"]["config"]["digest"],
        "diff_ids": [layer["diff_id"] for layer in image["image"]["layers"]],
        "components": sorted(c["purl"] for c in engine["components"]),
        "vulnerabilities": sorted((v["id"], v["purl"], v["severity"]) for v in engine["vulnerabilities"]),
        "checks": {c["check"]: c["outcome"]["kind"] for c in image["checks"] if c["check"] != "latest-tag"},
        "verdict": document["verdict"],
    }


def test_a_push_becomes_a_decision(
    server: Dockwarden, sample_layouts: Path, authority: Authority, tmp_path: Path
) -> None:
    with_tls = Registry(tmp_path / "registry", authority, "ci", "correct horse")
    with_tls.port = 0
    registry_port = _reserve(with_tls)
    added = server.api(
        "POST",
        "/api/v1/registries",
        json={
            "host": f"127.0.0.1:{registry_port}",
            "username": "ci",
            "password": "correct horse",
            "ca_pem": authority.file.read_text(),
        },
    )
    assert added.status_code in (200, 201), added.text
    made = dockwarden(Settings(home=server.home), "webhook", "create", "--registry", f"127.0.0.1:{registry_port}")
    assert made.returncode == 0, made.stderr
    with_tls.notifications = [
        {"url": f"{server.url}/webhooks/distribution", "authorization": f"Bearer {made.stdout.strip()}"}
    ]
    with_tls.start()
    try:
        with_tls.push(f"oci:{sample_layouts / 'shop/vulnerable'}:1.4.1", "shop/vulnerable:1.4.1")
        item = _await(server, "shop/vulnerable")
        assert item["verdict"] == "deny"
        answer = server.api(
            "POST",
            "/api/v1/gate",
            json={"image": f"127.0.0.1:{registry_port}/shop/vulnerable:1.4.1", "wait_seconds": 60},
        )
        assert answer.status_code == 200, answer.text
        decision = answer.json()
        assert decision["verdict"] == "deny"
        assert decision["undecided"] is False
        assert any("CVE-2026-90001" in reason["message"] for reason in decision["reasons"])
    finally:
        with_tls.stop()


def _reserve(registry: Registry) -> int:
    from tests.servers import free_port

    registry.port = free_port()
    return registry.port


def _await(server: Dockwarden, name: str) -> dict[str, Any]:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        found = server.api("GET", "/api/v1/images").json()["items"]
        for item in found:
            if name in json.dumps(item):
                return dict(item)
        time.sleep(0.3)
    pytest.fail(f"{name} was never decided; scans: {server.api('GET', '/api/v1/scans').text[:2000]}")


def test_every_source_tells_the_same(
    settings: Settings, sample_layouts: Path, registry: Registry, authority: Authority, tmp_path: Path
) -> None:
    layout = sample_layouts / "shop/vulnerable"
    registry.push(f"oci:{layout}:1.4.1", "same/vulnerable:1.4.1")
    oci, docker_archive = tmp_path / "oci.tar", tmp_path / "docker.tar"
    skopeo = [need("skopeo", "skopeo"), "copy", "--quiet", "--insecure-policy", f"oci:{layout}:1.4.1"]
    subprocess.run([*skopeo, f"oci-archive:{oci}"], check=True, capture_output=True)
    subprocess.run([*skopeo, f"docker-archive:{docker_archive}:shop/vulnerable:1.4.1"], check=True, capture_output=True)
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    config.write_text(
        json.dumps({"auths": {registry.host: {"username": registry.username, "password": registry.password}}})
    )
    targets = [
        f"oci:{layout}:1.4.1",
        f"archive:{oci}",
        f"archive:{docker_archive}",
        f"{registry.host}/same/vulnerable:1.4.1",
    ]
    found = [
        dockwarden(
            settings,
            "scan",
            target,
            "--format",
            "json",
            "--ca-file",
            str(authority.file),
            DOCKER_CONFIG=str(config.parent),
        )
        for target in targets
    ]
    assert [done.returncode for done in found] == [1, 1, 1, 1], [done.stderr for done in found]
    assert all(facts(done) == facts(found[0]) for done in found)
    digests = [json.loads(done.stdout)["report"]["subject"]["digest"] for done in found]
    assert digests[0] == digests[1] == digests[3], (
        "an OCI layout, an OCI archive and a registry carry the manifest itself"
    )


def test_the_local_engine_tells_the_same(
    settings: Settings, sample_layouts: Path, dockerd: str, tmp_path: Path
) -> None:
    layout, archive = sample_layouts / "shop/vulnerable", tmp_path / "docker.tar"
    skopeo = [need("skopeo", "skopeo"), "copy", "--quiet", "--insecure-policy", f"oci:{layout}:1.4.1"]
    subprocess.run([*skopeo, f"docker-archive:{archive}:shop/vulnerable:1.4.1"], check=True, capture_output=True)
    import docker

    with archive.open("rb") as stream:
        docker.DockerClient(base_url=dockerd).images.load(stream.read())
    engine = dockwarden(settings, "scan", "docker:shop/vulnerable:1.4.1", "--format", "json", DOCKER_HOST=dockerd)
    assert engine.returncode == 1, engine.stderr
    assert facts(engine) == facts(dockwarden(settings, "scan", f"oci:{layout}:1.4.1", "--format", "json"))


def make_index(base: Path, layouts: Path) -> Path:
    """An image index: a good image for amd64, a vulnerable one for arm64, and an attestation, which is no image."""
    blobs = base / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    manifests = []
    for name, architecture in (("good", "amd64"), ("vulnerable", "arm64")):
        layout = layouts / "shop" / name
        for blob in (layout / "blobs" / "sha256").iterdir():
            (blobs / blob.name).write_bytes(blob.read_bytes())
        entry = json.loads((layout / "index.json").read_text())["manifests"][0]
        manifests.append({**entry, "annotations": {}, "platform": {"os": "linux", "architecture": architecture}})
    attestation = {**manifests[0], "platform": {"os": "unknown", "architecture": "unknown"}}
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [*manifests, attestation],
        }
    ).encode()
    digest = Digest.of(index)
    (blobs / digest.hex).write_bytes(index)
    outer = {
        "schemaVersion": 2,
        "manifests": [
            {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": str(digest), "size": len(index)}
        ],
    }
    (base / "index.json").write_text(json.dumps(outer))
    (base / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return base


def test_an_index_is_its_platforms(settings: Settings, sample_layouts: Path, tmp_path: Path) -> None:
    layout = make_index(tmp_path / "index", sample_layouts)
    verdicts = {
        platform: dockwarden(settings, "scan", f"oci:{layout}", "--platform", platform).returncode
        for platform in ("linux/amd64", "linux/arm64", "linux/s390x")
    }
    assert verdicts == {"linux/amd64": 0, "linux/arm64": 1, "linux/s390x": 2}
    missing = dockwarden(settings, "scan", f"oci:{layout}", "--platform", "linux/s390x")
    assert "linux/amd64, linux/arm64" in missing.stderr


def test_a_server_judges_every_platform(
    server: Dockwarden, plain_registry: Registry, sample_layouts: Path, tmp_path: Path
) -> None:
    layout = make_index(tmp_path / "index", sample_layouts)
    server.api("POST", "/api/v1/registries", json={"host": plain_registry.host, "insecure": True})
    command = [need("skopeo", "skopeo"), "copy", "--all", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
    subprocess.run(
        [*command, f"oci:{layout}", f"docker://{plain_registry.host}/multi/app:1"], check=True, capture_output=True
    )
    answer = server.api(
        "POST", "/api/v1/gate", json={"image": f"{plain_registry.host}/multi/app:1", "wait_seconds": 60}
    )
    assert answer.status_code == 200, answer.text
    decision = answer.json()
    assert decision["verdict"] == "deny"
    assert sorted(verdict for _, verdict in decision["images"]) == ["allow", "deny"]
