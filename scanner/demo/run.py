"""``dockwarden demo``: sample images in a small registry, a server, and the gate's answer about each image.

Only the images are artificial: a read-only registry on the loopback serves them (distribution-spec, pull), a server is
started like ``dockwarden serve``, and the gate is asked like a CI job does.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from scanner.advisories import database
from scanner.commands._client import Answer, Client, describe
from scanner.config import Secret, Settings, secret_key
from scanner.demo import samples
from scanner.errors import RemoteError
from scanner.model.plurals import number_of
from scanner.store import registries
from scanner.store.session import Database
from scanner.worker.supervisor import bootstrap, environment_of

# For the server to answer, also on a slow machine.
_READY_SECONDS = 60
_PATH = re.compile(r"/v2/([a-z0-9/_-]+)/(manifests|blobs)/([A-Za-z0-9:._-]+)")


def run(settings: Settings, *, keep: bool, tell: Callable[[str], None]) -> bool:
    """Run the demo. Returns whether every sample got the expected verdict. Stops everything unless ``keep``."""
    with ExitStack() as stack:
        base = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="dockwarden-demo-", ignore_cleanup_errors=True))
        )
        tell("building sample images and a small advisory database")
        digests = {
            sample.name: samples.build_layout(sample, base / "images" / sample.repository) for sample in samples.SAMPLES
        }
        host = stack.enter_context(_registry(base / "images"))
        state = replace(
            settings, home=base / "state", port=settings.port if _free(settings.host, settings.port) else _any_port()
        )
        database.import_file(state, samples.build_advisories(base / "advisories"))
        token = _prepare(state, host)
        tell(f"starting a server on http://{state.host}:{state.port}")
        stack.enter_context(_server(state))
        client = Client(f"http://{state.host}:{state.port}", token)
        _await_ready(client)
        verdicts = {}
        for sample in samples.SAMPLES:
            image = f"{host}/{sample.name}"
            answer = client.gate(image, environment="", workload=None, wait=120, progress=lambda message: None)
            verdicts[sample.name] = _kind(answer)
            print(f"\n{describe(answer)}\n  ({sample.about})", flush=True)
        print(
            f"\n{number_of(len(digests), 'image')} decided: "
            + ", ".join(f"{name} {verdict}" for name, verdict in verdicts.items())
        )
        workload_denied = _deny_workload(client, host)
        if keep:
            print(f"Open http://{state.host}:{state.port}/ and sign in with the token {token.reveal()}", flush=True)
            tell("the server keeps running; stop it with Ctrl-C")
            _until_stopped()
        else:
            print(_NEXT, flush=True)
        return verdicts == _EXPECTED and workload_denied


def _deny_workload(client: Client, host: str) -> bool:
    """Show a workload that is denied although its image is allowed. Returns whether it was denied."""
    image = f"{host}/shop/good:1.4.2"
    text = _COMPOSE.format(image=image)
    answer = client.gate(image, environment="", workload=text, wait=60, progress=lambda message: None)
    print(
        f"\n{describe(answer)}\n  (the same image as above, run with the engine's socket: {_COMPOSE_FILE})", flush=True
    )
    documents = [{"file": _COMPOSE_FILE, "text": text}]
    inventory = {"environment": "production", "source": "compose", "name": "demo", "generation": 1}
    client.post("/api/v1/inventory", {**inventory, "documents": documents})
    return _kind(answer) == "deny"


_COMPOSE_FILE = "compose.yaml"
_COMPOSE = """\
services:
  good:
    image: {image}
    labels: {{team: shop}}
    volumes: ["/var/run/docker.sock:/var/run/docker.sock"]
"""


_NEXT = """
What to try next:
  make demo KEEP=1                                the same, and the server keeps running for a look at its pages
  .venv/bin/dockwarden scan archive:IMAGE.tar     an image of yours ("docker save IMAGE -o IMAGE.tar"), without a server
  .venv/bin/dockwarden advisories import FILE     first, for a real scan: vulnerability data (docs/advisories.md)
  .venv/bin/dockwarden serve                      a server to keep; it prints its address and a token (README.md)"""

_EXPECTED = {
    "shop/good:1.4.2": "allow",
    "shop/vulnerable:1.4.1": "deny",
    "shop/root-with-secret:latest": "deny",
    "shop/mystery:0.1": "undecided",
    "shop/aging:2.0.0": "warn",
}


def _kind(answer: Answer) -> str:
    if answer.pending:
        return "pending"
    return "undecided" if answer.verdict == "deny" and answer.undecided else answer.verdict


def _prepare(state: Settings, host: str) -> Secret:
    """Create the database, the registry's entry and the administrator's token."""
    store = Database.of(state)
    store.upgrade()
    token = bootstrap(store, secret_key(state))
    assert token is not None, "a new database has no token yet"
    with store.session() as session:
        registries.add(session, host, secret_key(state), insecure=True)
    return token


@contextmanager
def _server(state: Settings) -> Iterator[None]:
    """Run ``dockwarden serve`` as a child process. Its output is shown only if it fails."""
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("DOCKWARDEN_")}, **environment_of(state)}
    log = state.home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "scanner.cli", "serve"],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield
        except RemoteError:
            sys.stderr.write(log.read_text(errors="replace")[-4000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await_ready(client: Client) -> None:
    ends = time.monotonic() + _READY_SECONDS
    while not client.ready():
        if time.monotonic() > ends:
            raise RemoteError("the server did not become ready", reason="server_unreachable")
        time.sleep(0.2)


def _until_stopped() -> None:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _registry(images: Path) -> Iterator[str]:
    """Serve OCI layouts as a read-only registry on the loopback. Yields its host:port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            media_type, data = _answer(images, self.path.partition("?")[0])
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _answer(images: Path, path: str) -> tuple[str, bytes | None]:
    if path == "/v2/":
        return "application/json", b"{}"
    match = _PATH.fullmatch(path)
    layout = images / match[1] if match else images / secrets.token_hex(4)
    if match is None or not (layout / "index.json").is_file():
        return "application/json", None
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    digest = match[3]
    if match[2] == "manifests" and digest == entry["annotations"]["org.opencontainers.image.ref.name"]:
        digest = entry["digest"]
    blob = layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
    media_type = entry["mediaType"] if match[2] == "manifests" else "application/octet-stream"
    return media_type, blob.read_bytes() if blob.is_file() else None
