"""The pull gate on real parts: nginx with the shipped configuration, docker-registry, skopeo, and our own scanner
behind it.
"""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from scanner.model.reference import Digest
from tests.registry_gates import Gate
from tests.servers import Dockwarden, Registry, free_port

ALLOWED, DENIED = "shop/good", "shop/vulnerable"
OCI_MANIFEST, OCI_INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    made = Registry(tmp_path_factory.mktemp("behind-the-gate")).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, server: Dockwarden, behind: Registry) -> Iterator[Gate]:
    """Dockwarden knows the registry by the gate's address alone, so its own pulls come through the gate too."""
    gate = Gate(tmp_path_factory.mktemp("gate"), behind.host, server.url.removeprefix("http://"), "", port=free_port())
    added = server.api("POST", "/api/v1/registries", json={"host": gate.host, "insecure": True})
    assert added.status_code == 201, added.text
    made = server.api("POST", "/api/v1/tokens", json={"name": "gate", "scopes": ["pull"]})
    gate.token = made.json()["token"]
    gate.start()
    yield gate
    gate.stop()


@pytest.fixture(scope="module")
def pushed(behind: Registry, sample_layouts: Path) -> dict[str, str]:
    """The digest of each sample's manifest, under its own name and under those that an attacker would try."""
    found = {}
    for name in (ALLOWED, DENIED):
        (tag,) = {each["annotations"]["org.opencontainers.image.ref.name"] for each in _index(sample_layouts / name)}
        behind.push(f"oci:{sample_layouts / name}:{tag}", f"{name}:1")
        behind.push(f"oci:{sample_layouts / name}:{tag}", "shop/both:" + name.rpartition("/")[2])
        found[name] = str(_index(sample_layouts / name)[0]["digest"])
    behind.push(f"oci:{sample_layouts / DENIED}:{tag}", "other/name:1")
    return found


def _index(layout: Path) -> list[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = json.loads((layout / "index.json").read_text())["manifests"]
    return found


def until(gate: Gate, path: str, settled: Callable[[httpx.Response], bool]) -> httpx.Response:
    """The answer when the image has been scanned."""
    ends = time.monotonic() + 60
    while True:
        answer = gate.get(path)
        if settled(answer) or time.monotonic() > ends:
            return answer
        time.sleep(0.2)


def decided(answer: httpx.Response) -> bool:
    return answer.status_code != 403 or "being scanned" not in answer.text


def test_an_allowed_image_is_pulled_and_a_denied_one_by_no_name(gate: Gate, pushed: dict[str, str]) -> None:
    assert until(gate, f"/v2/{ALLOWED}/manifests/1", decided).status_code == 200
    done = gate.refused(f"{ALLOWED}:1")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (f"{DENIED}/manifests/1", f"{DENIED}/manifests/{pushed[DENIED]}", "other/name/manifests/1"):
        answer = until(gate, f"/v2/{name}", decided)
        assert answer.status_code == 403, name
        (error,) = answer.json()["errors"]
        assert error["code"] == "DENIED"
        assert "denied by policy" in error["message"], name
        assert answer.headers["Content-Type"] == "application/json"
        assert gate.get(f"/v2/{name}", "HEAD").status_code == 403
    for name in (f"{DENIED}:1", f"{DENIED}@{pushed[DENIED]}", f"other/name@{pushed[DENIED]}"):
        done = gate.refused(name)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "denied by policy" in done.stdout, "the person is told why"


def test_a_child_of_an_index_is_refused_and_the_other_is_not(
    gate: Gate, behind: Registry, pushed: dict[str, str]
) -> None:
    children = [
        {"mediaType": OCI_MANIFEST, "digest": pushed[name], "size": _size(behind, pushed[name]), "platform": platform}
        for name, platform in (
            (ALLOWED, {"os": "linux", "architecture": "amd64"}),
            (DENIED, {"os": "linux", "architecture": "arm64"}),
        )
    ]
    _put(behind, "shop/both", "1", OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})
    assert until(gate, "/v2/shop/both/manifests/1", decided).status_code == 403
    assert until(gate, f"/v2/shop/both/manifests/{pushed[DENIED]}", decided).status_code == 403
    assert until(gate, f"/v2/shop/both/manifests/{pushed[ALLOWED]}", decided).status_code == 200


def test_a_signature_is_pulled_and_what_is_not_there_is_not(
    gate: Gate, behind: Registry, pushed: dict[str, str]
) -> None:
    empty = _blob(behind, ALLOWED, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", **empty},
        "layers": [{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", **empty}],
    }
    tag = "sha256-" + pushed[ALLOWED].removeprefix("sha256:") + ".sig"
    digest = _put(behind, ALLOWED, tag, OCI_MANIFEST, document)
    assert until(gate, f"/v2/{ALLOWED}/manifests/{tag}", decided).status_code == 200
    assert until(gate, f"/v2/{ALLOWED}/manifests/{digest}", decided).status_code == 200
    absent = until(gate, f"/v2/{ALLOWED}/manifests/absent", decided)
    assert absent.status_code == 404, absent.text
    assert absent.json()["errors"][0]["code"] == "MANIFEST_UNKNOWN"


def test_a_tag_serves_what_was_judged_although_it_moved(gate: Gate, behind: Registry, pushed: dict[str, str]) -> None:
    """Between the question and the answer: nginx asks for the digest, so the move comes too late."""
    document = httpx.get(f"http://{behind.host}/v2/{ALLOWED}/manifests/1", headers={"Accept": OCI_MANIFEST}).content
    _put(behind, "shop/both", "moving", OCI_MANIFEST, document)
    assert until(gate, "/v2/shop/both/manifests/moving", decided).status_code == 200
    denied = httpx.get(f"http://{behind.host}/v2/{DENIED}/manifests/1", headers={"Accept": OCI_MANIFEST}).content
    _put(behind, "shop/both", "moving", OCI_MANIFEST, denied)
    answer = gate.get("/v2/shop/both/manifests/moving")  # within the seconds for which the tag is remembered, or denied
    assert answer.status_code == 403 or Digest.of(answer.content) == pushed[ALLOWED]


def test_pushes_and_lists_pass(gate: Gate, sample_layouts: Path, pushed: dict[str, str]) -> None:
    through = Registry(gate.directory, port=gate.port)
    tag = _index(sample_layouts / DENIED)[0]["annotations"]["org.opencontainers.image.ref.name"]
    through.push(f"oci:{sample_layouts / DENIED}:{tag}", "pushed/here:1")
    assert gate.get("/v2/pushed/here/tags/list").json()["tags"] == ["1"]
    for path in ("//v2/pushed/here/manifests/1", "/v2/pushed%2fhere/manifests/1", "/v2/x/../pushed/here/manifests/1"):
        assert gate.get(path).status_code in (403, 404), path


def exchanged(gate: Gate, data: bytes) -> bytes:
    """What nginx answers to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def request_of(target: str, method: str = "GET", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", f"Accept: {OCI_MANIFEST}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def test_no_form_of_a_request_brings_a_denied_image(gate: Gate, behind: Registry, pushed: dict[str, str]) -> None:
    """Old, lenient and forged requests as bytes, because a client of ours would mend them."""
    denied, allowed, at = f"/v2/{DENIED}/manifests/1", f"/v2/{ALLOWED}/manifests/1", pushed[DENIED]
    assert until(gate, denied, decided).status_code == 403
    manifest = httpx.get(f"http://{behind.host}{denied}", headers={"Accept": OCI_MANIFEST}).content
    assert Digest.of(manifest) == at
    host = f"Host: {gate.host}"
    targets = (
        f"http://{gate.host}{denied}",
        f"http://evil.example{denied}",
        f"{allowed}#/../..{denied}",
        f"{allowed}/../../../vulnerable/manifests/1",
        f"/v2/{DENIED}/blobs/{at}",
        f"/v2/{ALLOWED}/manifests/{at}",
        f"/v2/{DENIED}/manifests/{at.replace(':', '%253A')}",
        f"/v2/{DENIED}/manifests/%c0%ae%c0%ae/1",
        f"{denied}%00",
        f"{denied}\\",
        f"{denied}?x={allowed}",
    )
    forged = (
        (f"X-Original-URI: {allowed}", "X-Original-Method: PUT"),
        (f"X-Forwarded-Uri: {allowed}", "X-Forwarded-Method: PUT"),
        (f"X_Original_URI: {allowed}", "X_Original_Method: PUT"),
        ("Connection: X-Original-URI, X-Original-Method, Authorization",),
        ("Range: bytes=0-10",),
        (f'If-None-Match: "{at}"',),
        ("Accept: application/vnd.docker.distribution.manifest.v1+prettyjws;q=0, */*",),
        ("Content-Length: 5",),
    )
    requests = {
        "HTTP/0.9": f"GET {denied}\r\n".encode(),
        "HTTP/1.0": request_of(denied, version="1.0"),
        "pipelined": request_of(allowed, "GET", host).replace(b"Connection: close\r\n", b"")
        + request_of(denied, "GET", host),
        "chunked": request_of(denied, "GET", host, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        "another method": request_of(denied, "POST", host, "X-HTTP-Method-Override: GET", "Content-Length: 0"),
        **{target: request_of(target, "GET", host) for target in targets},
        **{str(headers): request_of(denied, "GET", host, *headers) + b"hello" for headers in forged},
    }
    for name, data in requests.items():
        answer = exchanged(gate, data)
        assert manifest not in answer, name
        statuses = re.findall(rb"HTTP/1\.1 ([0-9]+) ", answer)
        expected = {"pipelined": 2, "HTTP/0.9": 0}.get(name, 1)
        refused = [status for status in statuses if status[:1] == b"4"]
        assert (len(statuses), len(refused)) == (expected, min(expected, 1)), (name, answer)


def test_honest_requests_of_every_kind_are_answered(gate: Gate, pushed: dict[str, str]) -> None:
    path = f"/v2/{ALLOWED}/manifests/1"
    assert until(gate, path, decided).status_code == 200
    host = f"Host: {gate.host}"
    for status, data in (
        (200, request_of(path, version="1.0")),  # without a Host
        (200, request_of(f"http://{gate.host}{path}", "GET", host)),
        (200, request_of(f"{path}?ns=docker.io", "GET", host, "Authorization: Basic eDp5")),  # as containerd asks
        (200, request_of(path, "GET", host, "If-Modified-Since: Wed, 21 Oct 2026 07:28:00 GMT", "Range: bytes=0-9")),
        (200, request_of(path, "HEAD", host)),
        (200, request_of(f"/v2/{ALLOWED}/manifests/{pushed[ALLOWED].replace(':', '%3A')}", "GET", host)),
        (304, request_of(path, "GET", host, f'If-None-Match: "{pushed[ALLOWED]}"')),
        (200, request_of("/v2/", "GET", host)),
        (200, request_of("/v2/_catalog", "GET", host)),
    ):
        answer = exchanged(gate, data)
        assert answer.startswith(b"HTTP/1.1 %d " % status), (data, answer)


def test_without_dockwarden_nothing_is_pulled(behind: Registry, tmp_path: Path, pushed: dict[str, str]) -> None:
    away = Gate(tmp_path / "away", behind.host, f"127.0.0.1:{free_port()}", "dw_none").start()
    try:
        answer = away.get(f"/v2/{ALLOWED}/manifests/1")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (503, "UNAVAILABLE")
    finally:
        away.stop()


FAULTS = {
    "closes": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "not HTTP": b"\x16\x03\x01\x00\x00 no such protocol \xff\r\n\r\n",
    "an error": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "too busy": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "no such route": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 65536,
}


def test_an_answer_that_is_no_decision_pulls_nothing(behind: Registry, tmp_path: Path, pushed: dict[str, str]) -> None:
    """Whatever stands where Dockwarden should: nginx gives out nothing, and does not wait for ever."""
    said = {"now": b"", "late": False}
    over = threading.Event()

    class Fault(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            if said["late"]:
                over.wait(60)
            self.wfile.write(bytes(said["now"]))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Fault) as broken:
        broken.daemon_threads = True
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{broken.server_address[1]}"
        gate = Gate(tmp_path / "broken", behind.host, address, "dw_none", patience="1s").start()
        try:
            for name, answer in FAULTS.items():
                said["now"] = answer
                found = gate.get(f"/v2/{ALLOWED}/manifests/1")
                assert (found.status_code, found.json()["errors"][0]["code"]) == (503, "UNAVAILABLE"), name
            allowed = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            said.update(now=allowed, late=True)
            assert gate.get(f"/v2/{ALLOWED}/manifests/1").status_code == 503, "an answer that comes too late"
            over.set()
            said["late"] = False
            assert gate.get(f"/v2/{ALLOWED}/manifests/1").status_code == 200, "the same gate, answered"
        finally:
            over.set()
            gate.stop()
            broken.shutdown()


def test_a_wrong_token_pulls_nothing(
    behind: Registry, server: Dockwarden, tmp_path: Path, pushed: dict[str, str]
) -> None:
    wrong = Gate(tmp_path / "wrong", behind.host, server.url.removeprefix("http://"), "dw_wrong_token").start()
    try:
        assert wrong.get(f"/v2/{ALLOWED}/manifests/1").status_code == 401
    finally:
        wrong.stop()


def _size(registry: Registry, digest: str) -> int:
    url = f"http://{registry.host}/v2/shop/both/manifests/{digest}"
    return len(httpx.get(url, headers={"Accept": OCI_MANIFEST}, trust_env=False).content)


def _put(registry: Registry, repository: str, tag: str, kind: str, document: object) -> Digest:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    url = f"http://{registry.host}/v2/{repository}/manifests/{tag}"
    answer = httpx.put(url, content=data, headers={"Content-Type": kind}, trust_env=False)
    assert answer.status_code == 201, answer.text
    return Digest.of(data)


def _blob(registry: Registry, repository: str, data: bytes) -> dict[str, object]:
    base = f"http://{registry.host}"
    begun = httpx.post(f"{base}/v2/{repository}/blobs/uploads/", trust_env=False)
    where = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": str(Digest.of(data))})
    assert httpx.put(where, content=data, trust_env=False).status_code == 201
    return {"digest": str(Digest.of(data)), "size": len(data)}
