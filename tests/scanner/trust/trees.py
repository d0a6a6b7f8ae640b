"""Sample registries as files: one HTTP server on the loopback for a tree, or for files made in the test, and the
real client in front.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from scanner.config import Settings
from scanner.errors import ScannerError
from scanner.model.finding import TrustStatus, Verification
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.registry.auth import CredentialStore
from scanner.registry.client import Access, RegistryClient
from scanner.trust._state import NoState
from scanner.trust.base import Fetcher, TrustJob, TrustOptions, TrustRoot, TrustScheme

DATA = Path(__file__).parents[2] / "data/trust"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NOW = datetime.fromisoformat("2026-11-23T07:00:00+00:00")


class Files(dict[str, bytes]):
    """A registry's answers by path."""

    @classmethod
    @cache
    def of_tree(cls, tree: str) -> Files:
        root = DATA / tree
        return cls({"/" + str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()})

    def put_blob(self, data: bytes, repository: str = "team/app") -> dict[str, Any]:
        digest = "sha256:" + sha256(data).hexdigest()
        self[f"/v2/{repository}/blobs/{digest}"] = data
        return {"digest": digest, "size": len(data)}

    def put_manifest(self, document: Mapping[str, Any], tag: str = "", repository: str = "team/app") -> Descriptor:
        data = json.dumps(document).encode()
        digest = Digest.of(data)
        for name in filter(None, (tag, str(digest))):
            self[f"/v2/{repository}/manifests/{name}"] = data
        return Descriptor(str(document["mediaType"]), digest, len(data))

    def put_image(self, content: bytes = b"layer") -> Descriptor:
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", **self.put_blob(b"{}")}
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", **self.put_blob(content)}
        return self.put_manifest({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}, "v1")

    def put_referrer(
        self, image: Descriptor, artifact_type: str, layer_type: str, data: bytes, **other: Any
    ) -> Descriptor:
        """A manifest with one layer about ``image``, listed by the referrers API.

        ``other`` members replace those of the manifest.
        """
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", **self.put_blob(b"{}")},
            "layers": [{"mediaType": layer_type, **self.put_blob(data)}],
            "subject": {"mediaType": image.media_type, "digest": image.digest, "size": image.size},
            **other,
        }
        found = self.put_manifest(manifest)
        path = f"/v2/team/app/referrers/{image.digest}"
        index = json.loads(self.get(path, b'{"schemaVersion": 2, "manifests": []}')) | {"mediaType": INDEX}
        item = {"mediaType": MANIFEST, "digest": found.digest, "size": found.size, "artifactType": artifact_type}
        index["manifests"].append(item)
        self[path] = json.dumps(index).encode()
        return found


@contextmanager
def serving(files: Mapping[str, bytes], faults: Mapping[str, int] | None = None) -> Iterator[RegistryClient]:
    """A registry that holds ``files``, and the client of it. ``faults``: status by path, ``*`` for every one."""
    faults, settings = faults or {}, Settings()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = faults.get(self.path) or faults.get("*")
            body = files.get(self.path)
            if status or body is None:
                self.send_response(status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", _content_type(self.path, body))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    host = f"127.0.0.1:{server.server_port}"
    try:
        with RegistryClient(
            host, settings, CredentialStore(settings), Access(insecure=True), sleep=lambda seconds: None
        ) as client:
            yield client
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _content_type(path: str, body: bytes) -> str:
    if "/blobs/" in path:
        return "application/octet-stream"
    try:
        document = json.loads(body)
    except ValueError:
        return MANIFEST
    return str(document.get("mediaType") or INDEX) if isinstance(document, dict) else MANIFEST


def verify(
    scheme: TrustScheme,
    client: RegistryClient,
    descriptor: Descriptor,
    *documents: Mapping[str, Any],
    now: datetime = NOW,
    fetch: Fetcher | None = None,
    require_signers: tuple[str, ...] = (),
    settings: Settings | None = None,
) -> tuple[Verification, ...]:
    """The scheme's answers about an image of team/app; each document, as a file would hold it, is a trust root."""
    roots = tuple(
        TrustRoot(f"root-{i}", scheme.id, scheme.parse_trust(json.dumps(document).encode(), "trust.json"))
        for i, document in enumerate(documents)
    )
    reference = Reference(client.host, "team/app", "v1", descriptor.digest)
    job = TrustJob(
        reference=reference,
        roots=roots,
        now=now,
        state=NoState(),
        settings=settings or Settings(),
        options=TrustOptions(require_signers=require_signers),
        descriptor=descriptor,
        fetch=fetch or client,
    )
    return scheme.verify(job)


def cases(name: str) -> list[dict[str, Any]]:
    document = json.loads((DATA / name).read_text())
    found: list[dict[str, Any]] = document["cases"]
    return found


def run_case(scheme: TrustScheme, case: Mapping[str, Any]) -> Verification:
    """A sample case from its reference to the scheme's first answer; what resolving refuses is answered as the
    command line does.
    """
    faults = {path: fault["status"] for path, fault in case.get("http", {}).items()}
    with serving(Files.of_tree(case["tree"]), faults) as client:
        name = case["ref"]
        tag, digest = (None, Digest(name)) if name.startswith("sha256:") else (name, None)
        try:
            descriptor, _ = client.manifest(Reference(client.host, case["repo"], tag, digest))
        except ScannerError as error:
            refused = error.reason == "digest_mismatch"
            status = TrustStatus.REFUSED if refused else TrustStatus.UNKNOWN
            return Verification(scheme.id, status, None, "checksum" if refused else "unavailable", str(error))
        now = datetime.fromisoformat(case["time"])
        return verify(scheme, client, descriptor, case["policy"], now=now)[0]
