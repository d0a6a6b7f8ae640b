"""What a registry is pushed that is no image: the scan is done, nothing is judged, nobody is told of a failure, and
the gate says why.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scanner.config import Secret, Settings
from scanner.errors import ImageError
from scanner.model.scan import Lane, ScanRequest, ScanState
from scanner.registry.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from scanner.store import gate, pulls, registries, scans
from scanner.store.session import Database
from scanner.worker import server_scan
from tests.databases import BACKENDS, migrated_url
from tests.scanner.registry.test_client import Handler, liar

KEY = Secret("a secret key for tests, long enough")
EMPTY = "application/vnd.oci.empty.v1+json"


@pytest.fixture(params=BACKENDS)
def server(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[server_scan.ServerServices]:
    database = Database(migrated_url(request.param, tmp_path))
    yield server_scan.ServerServices.make(settings, database, "0", KEY)
    database.engine.dispose()


CONFIG, LAYER = b"{}", b"[]"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def artifact(config: str, layer: str, artifact_type: str = "") -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        **({"artifactType": artifact_type} if artifact_type else {}),
        "config": {"mediaType": config, "digest": digest_of(CONFIG), "size": 2},
        "layers": [{"mediaType": layer, "digest": digest_of(LAYER), "size": 2}],
    }


ARTIFACTS = {
    "cosign": artifact(OCI_CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json"),
    "buildkit": artifact(OCI_CONFIG, "application/vnd.in-toto+json"),
    "notation": artifact(EMPTY, "application/jose+json", "application/vnd.cncf.notary.signature"),
    "chart": artifact(
        "application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
    ),
    "thing": artifact(EMPTY, "text/plain", "application/vnd.example.thing"),
}


@pytest.fixture
def host(server: server_scan.ServerServices) -> Iterator[str]:
    """A registry whose tags are the artifacts, and ``all``, an index of them."""
    bodies = {tag: json.dumps(document).encode() for tag, document in ARTIFACTS.items()}
    for body in list(bodies.values()):
        bodies[digest_of(body)] = body
    children = [
        {"mediaType": OCI_MANIFEST, "digest": name, "size": len(body)} for name, body in bodies.items() if ":" in name
    ]
    bodies["all"] = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()

    bodies |= {digest_of(blob): blob for blob in (CONFIG, LAYER)}

    def answer(handler: Handler) -> None:
        body = bodies.get(handler.path.rpartition("/")[2])
        kind = json.loads(body)["mediaType"] if body and body not in (CONFIG, LAYER) else "application/octet-stream"
        handler.give(body=body, content_type=kind) if body else handler.give(404)

    with liar(answer) as there:
        with server.database.session() as session:
            registries.add(session, there.host, KEY, insecure=True)
        yield there.host


@pytest.mark.parametrize("tag", [*ARTIFACTS, "all"])
def test_what_is_no_image_is_done_and_no_failure(server: server_scan.ServerServices, host: str, tag: str) -> None:
    with server.database.session() as session:
        ticket = scans.request(session, ScanRequest(f"{host}/shop/app:{tag}", lane=Lane.PUSH))
    with server.database.session() as session:
        held = scans.claim(session, "worker", ("push",), 60)
    assert held is not None
    server_scan.run_claim(held, server, lambda progress: None)
    with server.database.read() as session:
        done = scans.get(session, ticket.scan_id)
        assert (done.state, done.reason, done.attempt, done.report_id) == (ScanState.DONE, "not_an_image", 0, None)
        assert "not an image" in done.message or "has no image" in done.message
        assert done.digest is not None
        assert gate.current_decision(session, done.digest, "", None, None) is None, "no verdict is in force"
        assert scans.invariants(session) == []
        assert ("push", "failed") not in scans.figures(session).by_state


def test_an_index_that_hides_an_image_is_a_failure_and_no_artifact(server: server_scan.ServerServices) -> None:
    """Done as "not an image", the index would pass a pull gate with the image that Docker runs."""
    hidden = json.dumps(artifact("application/octet-stream", "application/vnd.oci.image.layer.v1.tar")).encode()
    platform = {"os": "linux", "architecture": "amd64"}
    child = {"mediaType": OCI_MANIFEST, "digest": digest_of(hidden), "size": len(hidden), "platform": platform}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    bodies = {"1": index, digest_of(index): index, digest_of(hidden): hidden}

    def answer(handler: Handler) -> None:
        body = bodies.get(handler.path.rpartition("/")[2], b"")
        handler.give(body=body, content_type=json.loads(body)["mediaType"]) if body else handler.give(404)

    with liar(answer) as there:
        with server.database.session() as session:
            registries.add(session, there.host, KEY, insecure=True)
            scans.request(session, ScanRequest(f"{there.host}/shop/app:1", lane=Lane.PUSH))
        with server.database.session() as session:
            held = scans.claim(session, "worker", ("push",), 60)
        assert held is not None
        with pytest.raises(ImageError) as caught:
            server_scan.run_claim(held, server, lambda progress: None)
    assert caught.value.reason == "unsupported_media_type"
    with server.database.read() as session:
        assert not pulls.is_artifact(session, digest_of(index))
