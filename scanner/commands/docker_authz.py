"""``dockwarden docker-authz``: the authorization plugin of a Docker engine."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket as sockets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scanner.commands._console import Exit, pass_settings, server_options, tell
from scanner.config import Settings
from scanner.errors import RemoteError, UsageError

if TYPE_CHECKING:
    from scanner.commands._client import Client

SOCKET = "/run/docker/plugins/dockwarden.sock"
# The engine is asked while it waits for this plugin's own answer.
_ENGINE_SECONDS = 10
# An engine that was restarted with another store of images asks us before we notice that it was away.
_KIND_SECONDS = 10.0
_SERVER_SECONDS = 15  # longer than a server waits for a scan; the engine's clients wait meanwhile


@click.command("docker-authz")
@server_options("admission")
@click.option(
    "--socket", default=SOCKET, show_default=True, type=click.Path(path_type=Path), help="Socket to listen on."
)
@click.option(
    "--discovery",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write dockwarden.json to this directory, such as /etc/docker/plugins: needed with --socket.",
)
@click.option("--environment", default="", metavar="NAME", help="Environment of the host; selects policies.")
@click.option("--name", default="", help="Name of the host on the page Enforcement. Default: this machine's name.")
@click.option(
    "--grace",
    type=click.IntRange(0, 7 * 86_400),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long the last answer is used while the server cannot be reached.",
)
@click.option("--fail-open", is_flag=True, help="After --grace, allow unknown images and log them. Default: deny them.")
@click.option("--builds/--no-builds", default=True, show_default=True, help="Allow or deny image builds on the host.")
@click.option(
    "--swarm/--no-swarm",
    default=False,
    show_default=True,
    help="Allow or deny that the host creates or joins a swarm. Managers of a swarm start services on it unasked.",
)
@pass_settings
def docker_authz(
    settings: Settings,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
    socket: Path,
    discovery: Path | None,
    environment: str,
    name: str,
    grace: int,
    fail_open: bool,
    builds: bool,
    swarm: bool,
) -> Exit:
    """Run the authorization plugin of a Docker engine: it asks the server before a container starts.

    Start dockerd with --authorization-plugin=dockwarden. Create the token on the server: dockwarden token create NAME
    --scope admission. See docs/docker-authz.md.
    """
    from scanner.commands import _client, _engine_gate

    logging.basicConfig(level=settings.log_level, format="%(levelname)s %(message)s")
    # httpx logs one line per request, with the address. That would be a line for every container that starts.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    ask = questions_to(_client.of(settings, server, token, ca_file))
    options = _engine_gate.Options(name or sockets.gethostname(), environment, grace, fail_open, builds, swarm)
    gate = _engine_gate.EngineGate(options, _Docker(), ask)
    _prepare(socket)
    # After the socket's directory is there; dockerd reads the file at its start and connects at the first call.
    if discovery is not None:
        _discover(discovery, socket)
    asyncio.run(_until_signal(gate, socket))
    return Exit.OK


def questions_to(client: Client) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A function that puts a question to the server and returns its answer.

    It raises RemoteError when the server is away, cannot be authenticated or fails, RefusedError when it refuses us.
    """

    def ask(question: Mapping[str, Any]) -> Mapping[str, Any]:
        _, answer = client.post("/adapters/docker/authorize", dict(question), seconds=_SERVER_SECONDS)
        return answer

    return ask


def _prepare(socket: Path) -> None:
    """Make room for the socket. Raises UsageError for one on which another process answers."""
    socket.parent.mkdir(parents=True, exist_ok=True)
    if socket.exists() or socket.is_symlink():
        if not socket.is_socket():
            raise UsageError(f"{socket} is there and is no socket", hint="remove it, or choose another with --socket")
        with sockets.socket(sockets.AF_UNIX) as probe:
            # A socket file stays behind when its process is killed. Only one that nobody answers on is removed.
            if probe.connect_ex(str(socket)) == 0:
                raise UsageError(f"another process answers on {socket}", hint="stop it first")
        socket.unlink()


def _discover(directory: Path, socket: Path) -> None:
    """https://docs.docker.com/engine/extend/plugin_api/#plugin-discovery"""
    directory.mkdir(parents=True, exist_ok=True)
    address = {"Name": "dockwarden", "Addr": f"unix://{socket.absolute()}"}
    (directory / "dockwarden.json").write_text(json.dumps(address) + "\n", "utf-8")


async def _until_signal(gate: Any, socket: Path) -> None:
    from scanner.commands import _engine_gate

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    former = os.umask(0o177)  # everybody who can call it asks the server through it

    def ready() -> None:
        os.umask(former)
        tell(f"listening on {socket}; start dockerd with --authorization-plugin=dockwarden")

    try:
        await _engine_gate.serve(gate, str(socket), ready, stop)
    finally:
        # dockerd would wait for a plugin whose file is there and whose process is gone.
        socket.unlink(missing_ok=True)


class _Docker:
    """The local engine. ``DOCKER_HOST`` is respected. A client for each thread: its sessions are not shared."""

    def __init__(self) -> None:
        # The version of its API, whether its images are in containerd, and when it said so. An engine refuses versions
        # that are too old or too new for it, so no fixed one fits all.
        self._kind: tuple[str, bool, float] | None = None

    def image(self, name: str) -> Mapping[str, Any] | None:
        """See `_engine_gate.Engine.image`."""
        from scanner.commands._engine_gate import content_digests

        found, in_containerd = self._inspect("images", name)
        return found and {**found, "RepoDigests": content_digests(found, in_containerd=in_containerd)}

    def container(self, name: str) -> Mapping[str, Any] | None:
        """See `_engine_gate.Engine.container`."""
        return self._inspect("containers", name)[0]

    def volume(self, name: str) -> Mapping[str, Any] | None:
        """See `_engine_gate.Engine.volume`."""
        return self._inspect("volumes", name)[0]

    def service(self, name: str) -> Mapping[str, Any] | None:
        """See `_engine_gate.Engine.service`."""
        return self._inspect("services", name)[0]

    def _inspect(self, what: str, name: str) -> tuple[Mapping[str, Any] | None, bool]:
        """Return what the engine says, and whether its images are in containerd. Raises RemoteError if it does not
        answer.
        """
        import docker  # a second of imports, which most runs of the command line do without
        from docker.errors import DockerException, NotFound
        from docker.utils import kwargs_from_env
        from requests.exceptions import RequestException

        from scanner.commands._engine_gate import keeps_images_in_containerd

        try:
            # Once for this call: another thread may forget it meanwhile, and its images would be judged by their names.
            kind = self._kind
            if kind is not None and time.monotonic() - kind[2] > _KIND_SECONDS:
                kind = None
            version = kind[0] if kind else "auto"
            client: Any = docker.APIClient(**kwargs_from_env(), version=version, timeout=_ENGINE_SECONDS)
            try:
                if kind is None:
                    kind = (client.api_version, keeps_images_in_containerd(client.info()), time.monotonic())
                    self._kind = kind
                inspect = {
                    "images": client.inspect_image,
                    "containers": client.inspect_container,
                    "volumes": client.inspect_volume,
                    "services": client.inspect_service,
                }[what]
                found: Mapping[str, Any] = inspect(name)
            finally:
                client.close()
        except NotFound:
            return None, False
        except (DockerException, RequestException) as error:
            self._kind = None  # it may have been upgraded meanwhile
            raise RemoteError(f"the Docker engine does not answer: {error}", reason="engine_unavailable") from error
        return found, kind[1]
