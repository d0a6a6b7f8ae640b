"""How fast an allowed image comes through the pull gate, as a ratio to the same nginx without the gate.

    python benchmarks/pull_gate.py [--rounds 9] [--layers 8] [--megabytes 8]

nginx with the shipped configuration, docker-registry and skopeo, all real, on the loopback; the image is pulled by
digest into a fresh directory. Rounds alternate, and medians are told. On a loopback every millisecond of the gate
counts; over a network it is less.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gate import decided, serve
from scanner.model.image import Image, ImageConfig, Layer
from scanner.model.reference import Descriptor, Digest, Platform
from tests.registry_gates import Gate
from tests.servers import Registry, free_port

GOAL = 0.9
POLICY = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: benchmark}
advisories: {max_age: 5200w}
rules:
  - {id: no-criticals, vulnerability: {severity: [critical]}, action: deny}
"""
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Open(Gate):
    """The same nginx without the gate."""

    def _config(self) -> str:
        return super()._config().replace("auth_request /_dockwarden;", "")


def layout(directory: Path, layers: int, megabytes: int) -> Image:
    """An OCI layout of an image whose layers are random bytes. Returns the manifest as Dockwarden knows it."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, Any]:
        digest = Digest.of(data)
        (blobs / digest.hex).write_bytes(data)
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    parts = [put(gzip.compress(secrets.token_bytes(megabytes << 20), 0), kind) for _ in range(layers)]
    diff_ids = [part["digest"] for part in parts]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    described = put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": parts}
    entry = put(json.dumps(manifest).encode(), OCI_MANIFEST)
    named = entry | {"annotations": {"org.opencontainers.image.ref.name": "1"}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    known = [Layer(n, part["digest"], part["digest"], kind, part["size"]) for n, part in enumerate(parts)]
    ids = tuple(layer.diff_id for layer in known)
    facts = ImageConfig(described["digest"], Platform("linux", "amd64"), ids)
    return Image(Descriptor(OCI_MANIFEST, entry["digest"], entry["size"]), facts, tuple(known))


def prepare(home: Path, host: str, image: Image) -> str:
    """A database in which the image is allowed. Returns a token of the gate."""
    from scanner import config
    from scanner.store import accounts, policies, registries
    from scanner.store.session import Database
    from tests.scanner.store import factories as make

    settings = config.Settings(home=home)
    database = Database(settings.database)
    database.upgrade()
    found = make.report("small", packages=[make.package(1)], repository=f"{host}/shop/image")
    found = replace(found, subject=image.manifest, images=(replace(found.images[0], image=image),))
    with database.session() as session:
        policies.put(session, "benchmark", POLICY, "benchmark")
        key = config.secret_key(settings)
        registries.add(session, host, key, insecure=True)
        token = accounts.create_token(session, "benchmark", ["pull"], key)[1]
        decided(session, found)
    database.engine.dispose()
    return token.reveal()


def pull(host: str, digest: str, directory: Path) -> float:
    """Seconds that a pull takes."""
    destination = directory / secrets.token_hex(4)
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, f"docker://{host}/shop/image@{digest}", f"dir:{destination}"], capture_output=True, check=False
    )
    took = time.perf_counter() - began
    subprocess.run(["rm", "-rf", str(destination)], check=True)
    if done.returncode:
        raise SystemExit(f"the image was not pulled: {done.stderr.decode()}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        image = layout(directory / "image", asked.layers, asked.megabytes)
        registry = Registry(directory / "registry").start()
        registry.push(f"oci:{directory / 'image'}:1", "shop/image:1")
        port = free_port()
        gate = Gate(directory / "gate", registry.host, f"127.0.0.1:{port}", "", "&strict=1", port=free_port())
        gate.token = prepare(directory / "home", gate.host, image)
        server = serve(directory / "home", "", port)
        try:
            gate.start()
            plain = Open(directory / "open", registry.host, f"127.0.0.1:{port}", gate.token).start()
            took: dict[str, list[float]] = {gate.host: [], plain.host: []}
            digest = image.digest
            for host in took:
                pull(host, digest, directory)  # warm
            for _ in range(asked.rounds):
                for host, times in took.items():
                    times.append(pull(host, digest, directory))
            gate.stop()
            plain.stop()
        finally:
            os.killpg(server.pid, 15)
            server.wait(20)
            registry.stop()
    through, without = (statistics.median(times) * 1000 for times in took.values())
    size = asked.layers * asked.megabytes
    print(f"{size} MiB in {asked.layers} layers, strict: {through:.0f} ms through the gate, {without:.0f} ms without")
    print(f"ratio {without / through:.2f}; goal {GOAL} or more; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
