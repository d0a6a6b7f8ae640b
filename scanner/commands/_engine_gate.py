"""Answering a Docker engine's authorization plugin calls: from memory, from the server, or as it is set up without one.

https://docs.docker.com/engine/extend/plugins_authorization/
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import httptools
import orjson

from scanner import catalog
from scanner.commands import _engine_requests as requests
from scanner.errors import Fault, ScannerError, UsageError
from scanner.model.reference import Reference
from scanner.model.workload import Workload
from scanner.services import workload_documents

log = logging.getLogger(__name__)

_KEPT_SECONDS = 60.0  # after so long the server is asked again: a policy may have changed, or evidence been found
_MAX_CACHED = 4096
_MOST_IMAGES = 5
_CALL_LIMIT = 64 << 20  # of a call of the engine, which may carry the answer to a person as well
_WORKERS = 16  # threads that ask the server; an engine seldom starts more containers at once
_ALLOW = b'{"Allow":true}'


class Engine(Protocol):
    """The engine that asks, as far as it is asked back."""

    def image(self, name: str) -> Mapping[str, Any] | None:
        """What ``docker image inspect`` prints. None: there is no such image here."""

    def container(self, name: str) -> Mapping[str, Any] | None:
        """What ``docker inspect`` prints. None: there is no such container."""

    def volume(self, name: str) -> Mapping[str, Any] | None:
        """What ``docker volume inspect`` prints. None: there is no such volume."""

    def service(self, name: str) -> Mapping[str, Any] | None:
        """What ``docker service inspect`` prints. None: there is no such service."""


@dataclass(frozen=True)
class Options:
    """How a host asks. ``grace``: seconds for which the last answer counts while the server is away."""

    host: str  # name of this machine, for the audit log and lists
    environment: str = ""
    grace: float = 3600.0
    fail_open: bool = False  # allow what the server could not be asked about, after ``grace``
    builds: bool = True  # allow builds, which run commands of images that nobody decided about
    swarm: bool = False  # allow joining a swarm, whose managers start services on this host unasked


@dataclass(frozen=True)
class _CachedAnswer:
    """An answer, when it was given (monotonic clock), and until when time alone does not change it."""

    document: Mapping[str, Any]
    at: float
    valid_until: float | None


@dataclass
class EngineGate:
    """Decides calls. ``ask`` posts a question to the server and returns its answer, or raises ScannerError."""

    options: Options
    engine: Engine
    ask: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    clock: Callable[[], float] = time.monotonic  # monotonic seconds, for ages
    now: Callable[[], float] = time.time  # seconds since 1970, to compare with the server's times
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[bytes, _CachedAnswer] = field(default_factory=OrderedDict)

    def concerns(self, call: Mapping[str, Any]) -> requests.Ask | None:
        """What the call would start. None: it passes. Raises UsageError for what never does."""
        method, uri, headers = call.get("RequestMethod"), call.get("RequestUri"), call.get("RequestHeaders") or {}
        if not isinstance(method, str) or not isinstance(uri, str) or not isinstance(headers, dict):
            raise UsageError("Dockwarden refuses this request: the engine's call cannot be read", reason="refused")
        text = {str(key): str(value) for key, value in headers.items()}
        body, options = _body(call.get("RequestBody")), self.options
        return requests.read(method, uri, text, body, builds=options.builds, swarm=options.swarm)

    def decide(self, ask: requests.Ask, user: str) -> str:
        """Why it is refused; empty: it may start. Never raises."""
        try:
            for one in self._questions(ask):
                # The user is not part of the key of the memory: who asks changes no decision, and is only recorded.
                if message := self._answer({**one, "user": user}):
                    return message
        except UsageError as error:
            return str(error)
        except ScannerError as error:
            return f"Dockwarden could not find out what this would start, so it is denied: {error}"
        except Exception:
            # A stage boundary: the engine lets a request through whose plugin breaks in some of its versions.
            log.exception("a call broke")
            return "Dockwarden could not decide, so it is denied: an internal error. See its log."
        return ""

    def _questions(self, ask: requests.Ask) -> list[Mapping[str, Any]]:
        if ask.images:
            return [self._question(ask, [name], None) for name in ask.images]
        if ask.operation == "image pull":
            return [self._question(ask, [ask.image], None)]
        if ask.rolled_back:
            return [self._rollback(ask)]
        if ask.container:
            found = self.engine.container(ask.container)
            if found is None:
                # Not left to the engine: the container could be created between this answer and its start.
                raise UsageError(f"there is no container {ask.container}", reason="refused")
            if ask.document:
                found = {**found, "HostConfig": {**(found.get("HostConfig") or {}), **ask.document}}
            config = found.get("Config")
            named = str(config.get("Image") or "") if isinstance(config, dict) else ""
            references = self._references(str(found.get("Image") or ""), named)
            name = str(found.get("Name") or "").lstrip("/")
            workload = _workload("docker", [found, *self._volumes(found)])
            return [self._question(ask, references, workload and self._with_local_images(workload), name)]
        assert ask.document is not None
        # A service is not run from the images that are here: each of its nodes pulls by the name. A tag that was set
        # here names another image.
        if ask.source == "swarm":
            return [self._question(ask, [ask.image], _workload(ask.source, ask.document))]
        references = self._references(ask.image, ask.image)
        return [self._question(ask, references, self._requested_workload(ask.source, ask.document))]

    def _rollback(self, ask: requests.Ask) -> Mapping[str, Any]:
        """The question about a service's former settings, which the engine has."""
        former = (self.engine.service(ask.rolled_back) or {}).get("PreviousSpec")
        template = former.get("TaskTemplate") if isinstance(former, dict) else None
        container = template.get("ContainerSpec") if isinstance(template, dict) else None
        if not isinstance(container, dict) or not container.get("Image"):
            raise UsageError(f"the service {ask.rolled_back} has no former settings", reason="refused")
        workload = _workload("swarm", {"ID": "new", "Spec": former})
        return self._question(ask, [str(container["Image"])], workload)

    def _requested_workload(self, source: str, document: Mapping[str, Any]) -> Workload | None:
        """The container that a request would create, with what the engine has of its volumes and mounted images."""
        workload = _workload(source, document)
        if workload is None:
            return None
        names = {each.source for each in workload.mounts if each.kind == "volume" and each.source}
        found = [each for name in sorted(names) if (each := self.engine.volume(name)) is not None]
        workload = _workload(source, [document, *found]) if found else workload
        return workload and self._with_local_images(workload)

    def _volumes(self, container: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The volumes of a container. The options of one can bind a path of the host."""
        mounts = container.get("Mounts")
        named = [each for each in mounts if isinstance(each, dict)] if isinstance(mounts, list) else []
        names = {str(each["Name"]) for each in named if each.get("Type") == "volume" and each.get("Name")}
        found = [self.engine.volume(name) for name in sorted(names)]
        return [each for each in found if each is not None]

    def _with_local_images(self, workload: Workload) -> Workload:
        """The workload with the repository digests of the images that it mounts; a tag may name another image here."""
        mounts = (
            replace(each, source=self._references(each.source, each.source)[0]) if each.kind == "image" else each
            for each in workload.mounts
        )
        return replace(workload, mounts=tuple(mounts))

    def _references(self, name: str, named: str) -> list[str]:
        """By which names a registry knows an image: those of the repository that was named before others.

        One that is not here is what its name says, and the engine pulls it next. Raises UsageError for one that no
        registry knows.
        """
        image = self.engine.image(name)
        if image is None:
            return [name]
        digests = [str(each) for each in image.get("RepoDigests") or ()]
        # An image that was built or loaded here has no digest that the server could know. Letting it start would be a
        # way around every policy.
        if not digests:
            raise UsageError(
                f"Dockwarden refuses this request: {named or name} is a local image that no registry knows; push it, "
                "and pull it from there",
                reason="refused",
            )
        wanted = _repository(named)
        return sorted(digests, key=lambda each: (_repository(each) != wanted, each))[:_MOST_IMAGES]

    def _question(
        self, ask: requests.Ask, images: list[str], workload: Workload | None, name: str = ""
    ) -> Mapping[str, Any]:
        return {
            "host": self.options.host,
            "operation": ask.operation,
            "name": (name or ask.name)[:253],
            "environment": self.options.environment,
            "images": images,
            "workload": workload_documents.document(workload) if workload else None,
        }

    def _answer(self, question: Mapping[str, Any]) -> str:
        key = hashlib.blake2b(
            orjson.dumps([question[name] for name in ("images", "workload", "environment")]), digest_size=24
        ).digest()
        with self._lock:
            kept = self._kept.get(key)
        now = self.clock()
        if kept and now - kept.at < _KEPT_SECONDS and (kept.valid_until is None or self.now() < kept.valid_until):
            return _message(kept.document)
        try:
            answer = self.ask(question)
        except ScannerError as error:
            # The server is there and refuses us: a wrong token, a request that it cannot read. The last answer must
            # not hide that for the time of the grace.
            if error.fault is Fault.CALLER and error.reason != "rate_limited":
                raise UsageError(f"Dockwarden refuses this request: {error}", reason="refused") from error
            return self._without_server(kept, question, error)
        with self._lock:
            # A pending answer is not kept: the next call has to see the end of the scan.
            if answer.get("pending"):
                self._kept.pop(key, None)
            else:
                self._kept[key] = _CachedAnswer(answer, now, _epoch(answer.get("valid_until")))
                self._kept.move_to_end(key)
                while len(self._kept) > _MAX_CACHED:
                    self._kept.popitem(last=False)
        return _message(answer)

    def _without_server(self, kept: _CachedAnswer | None, question: Mapping[str, Any], error: ScannerError) -> str:
        # Also a denial is kept for this time. Restarting the server must not open the door.
        if kept is not None and self.clock() - kept.at < self.options.grace:
            log.warning(
                "the server cannot be asked (%s): its last answer about %s is used", error, question["images"][0]
            )
            return _message(kept.document)
        # A server that limits us is there. Otherwise a user of the engine who asks often enough would open the door.
        if self.options.fail_open and error.reason != "rate_limited":
            log.warning(
                "the server cannot be asked (%s): %s is allowed without a decision", error, question["images"][0]
            )
            return ""
        return f"Dockwarden cannot be asked, so this is denied: {error}"


def keeps_images_in_containerd(info: Mapping[str, Any]) -> bool:
    """Whether an engine's ``/info`` names containerd as the store of its images (the default since Docker 29)."""
    status = info.get("DriverStatus")
    pairs = [pair for pair in status if isinstance(pair, list)] if isinstance(status, list) else []
    return ["driver-type", "io.containerd.snapshotter.v1"] in pairs


def content_digests(image: Mapping[str, Any], *, in_containerd: bool) -> list[str]:
    """The repository digests of an inspected image that are the digest of its content.

    In containerd an image has any name that the archive it was loaded from gives it, such as ``repository@sha256:…`` of
    an image that is allowed. Its real digest is its ID. In the older store, only a pull or push adds such a name, and
    the ID is the digest of the configuration.
    """
    digests = [str(each) for each in image.get("RepoDigests") or ()]
    descriptor = image.get("Descriptor")
    target = descriptor.get("digest") if isinstance(descriptor, dict) else image.get("Id") if in_containerd else None
    if target is None and not in_containerd:
        return digests
    return [each for each in digests if each.rpartition("@")[2] == target]


def _body(value: Any) -> bytes | None:
    if value is None or value == "":
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise UsageError("Dockwarden refuses this request: its body cannot be read", reason="refused") from error


def _workload(source: str, document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Workload | None:
    found = catalog.workload_sources()[source].parse(json.dumps(document), "the request")
    return found[0] if found else None


def _repository(text: str) -> str:
    try:
        return Reference.parse(text).name
    except UsageError:
        return ""


def _message(answer: Mapping[str, Any]) -> str:
    """Why the server denies; empty where it says in so many words that it does not."""
    return "" if answer.get("allowed") is True else str(answer.get("message") or "denied by Dockwarden")[:1000]


def _epoch(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if value else None
    except (TypeError, ValueError):
        return 0.0


# The socket. Most calls concern nobody and are answered in the event loop, in microseconds.


class _Connection(asyncio.Protocol):
    """One connection of the engine, which sends its calls one after another."""

    def __init__(self, gate: EngineGate, workers: ThreadPoolExecutor) -> None:
        self._gate, self._workers = gate, workers
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._data, self._size = b"", bytearray(), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol.connection_made`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._path, self._data, self._size = b"", bytearray(), 0

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > _CALL_LIMIT:
            self._transport.close()
        elif self._path == b"/AuthZPlugin.AuthZReq":  # of the other calls nothing is read
            self._data += body

    def on_message_complete(self) -> None:
        if self._path == b"/Plugin.Activate":
            self._send(b'{"Implements":["authz"]}')
        elif self._path == b"/AuthZPlugin.AuthZRes":
            self._send(_ALLOW)
        elif self._path == b"/AuthZPlugin.AuthZReq":
            self._request(bytes(self._data))
        else:
            self._send(b'{"Err":"there is no such call"}', 404)

    def _request(self, data: bytes) -> None:
        user = ""
        try:
            call = orjson.loads(data)
            if not isinstance(call, dict):
                raise UsageError("Dockwarden refuses this request: the engine's call cannot be read")
            user = str(call.get("User") or "")[:253]
            ask = self._gate.concerns(call)
        except orjson.JSONDecodeError:
            self._deny("Dockwarden refuses this request: the engine's call cannot be read")
        except ScannerError as error:
            log.warning("refused: %s %s", user, error)
            self._deny(str(error))
        else:
            if ask is None:
                self._send(_ALLOW)
                return
            loop = asyncio.get_running_loop()
            # Asking the server and the engine takes up to seconds. The loop goes on answering the calls that need no
            # decision.
            deciding = loop.run_in_executor(self._workers, self._gate.decide, ask, user)
            deciding.add_done_callback(lambda done: self._answer_request(ask, user, done.result()))

    def _answer_request(self, ask: requests.Ask, user: str, message: str) -> None:
        if message:
            log.warning("denied: %s %s %s: %s", user, ask.operation, ask.image or ask.container, message.split("\n")[0])
            self._deny(message)
        else:
            self._send(_ALLOW)

    def _deny(self, message: str) -> None:
        self._send(orjson.dumps({"Allow": False, "Msg": message}))

    def _send(self, body: bytes, status: int = 200) -> None:
        reason = b"200 OK" if status == 200 else b"404 Not Found"
        head = b"HTTP/1.1 %s\r\nContent-Type: application/vnd.docker.plugins.v1.1+json\r\nContent-Length: %d\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head % (reason, len(body)) + body)


async def serve(gate: EngineGate, path: str, ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Answer on a Unix socket until ``stop`` is set."""
    loop = asyncio.get_running_loop()
    workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="docker-authz")
    server = await loop.create_unix_server(lambda: _Connection(gate, workers), path)
    async with server:
        ready()
        await stop.wait()
    workers.shutdown(wait=False, cancel_futures=True)
