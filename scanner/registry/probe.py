"""Asking a registry how it protects itself, without doing it harm: facts, no judgement (``scanner.checks.registry``
judges).

Nothing is left behind and nothing is taken away: an upload that is let begin is cancelled, what is asked to be
deleted cannot exist. Credentials are sent for two questions only (which repositories there are, whether digests
hold) and only over a connection that may be trusted with them. Everything is bounded: connections in number and
time, answers in size.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from socket import socket
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from scanner.config import Secret, Settings
from scanner.errors import ImageError, RemoteError, ScannerError, UsageError
from scanner.model.finding import Incomplete
from scanner.model.posture import (
    Access,
    AccessFacts,
    ChallengeFact,
    DigestFact,
    PlainFact,
    RegistryFacts,
    SoftwareFact,
    TlsFacts,
    name_of,
)
from scanner.model.reference import DOCKER_HUB, Digest, Reference
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.outbound import (
    Answer,
    HttpClient,
    Reach,
    connector,
    http_client,
    plain_name,
    probing_context,
    split_address,
    tls_context,
)
from scanner.registry import tls
from scanner.registry.auth import CredentialStore, parse_challenges
from scanner.registry.client import Access as Way
from scanner.registry.client import RegistryClient
from scanner.registry.manifest import ACCEPT

T = TypeVar("T")
_SECONDS = 45.0
_CONNECT = 4.0
_MAX_BODY = 1 << 20
_MAX_MANIFEST = 4 << 20
NOWHERE = "dockwarden-probe/does-not-exist"
NO_DIGEST = Digest("sha256:" + "0" * 64)  # nobody knows bytes that have it
_NO_REPOSITORY = Incomplete(
    "no_repository", "no repository is known there to ask about: name one with --repository, or scan an image of it"
)


def probe(
    host: str,
    settings: Settings,
    credentials: CredentialStore,
    way: Way | None = None,
    repository: str = "",
    *,
    seconds: float = _SECONDS,
) -> RegistryFacts:
    """Everything that can be found out about ``host`` within ``seconds``. What cannot is Incomplete in the facts.

    Raises RefusedError for a host that must not be connected to, RemoteError for one that is not there at all,
    UsageError for CA certificates that cannot be read.
    """
    tls_context((way or Way()).ca_file or settings.ca_file)
    return _Probe(host, settings, credentials, way or Way(), repository, time.monotonic() + seconds).run()


@dataclass
class _Probe:
    host: str
    settings: Settings
    credentials: CredentialStore
    way: Way
    repository: str
    ends: float

    def __post_init__(self) -> None:
        address = "registry-1.docker.io" if self.host == DOCKER_HUB else self.host
        self._name = name_of(address)
        self._address = address
        tail = address.rpartition("]")[2] if "[" in address else address
        port = tail.partition(":")[2]
        self._port = int(port) if port else 80 if self.way.insecure else 443
        self._default_port = not port
        self._reach = Reach(self.settings, frozenset((plain_name(self._name),)), self.way.named)

    def run(self) -> RegistryFacts:
        connect = self._timed(connector(self._name, self._port, self._reach, timeout=_CONNECT))
        with connect() as first:
            address = clean_text(str(first.getpeername()[0]), 64)
        facts = RegistryFacts(self.host, self._port, address, datetime.now(UTC))
        spoken = self._asked(lambda: self._tls(connect))
        facts = replace(facts, tls=spoken, plain=self._asked(lambda: self._plain(connect)))
        secure = isinstance(spoken, TlsFacts) and any(fact.accepted is True for fact in spoken.versions)
        with self._http() as http:
            return self._ask_registry(
                facts, _Registry(self, http, f"{'https' if secure else 'http'}://{self._address}"), secure
            )

    def _asked(self, ask: Callable[[], T]) -> T | Incomplete:
        """The answer, or why there is none."""
        if time.monotonic() > self.ends:
            return Incomplete("probe_timeout", "the registry took too long to answer everything")
        try:
            return ask()
        except (httpx.HTTPError, OSError, ScannerError) as error:
            return Incomplete("no_answer", clean_text(f"{error or type(error).__name__}", 300))

    def _timed(self, connect: Callable[[], socket]) -> Callable[[], socket]:
        """New connections while there is time. Raises TimeoutError after."""

        def timed() -> socket:
            left = self.ends - time.monotonic()
            if left <= 0:
                raise TimeoutError("the registry took too long to answer everything")
            connection = connect()
            connection.settimeout(min(_CONNECT, left))
            return connection

        return timed

    def _tls(self, connect: Callable[[], socket]) -> TlsFacts | Incomplete | None:
        ca_file = self.way.ca_file or self.settings.ca_file
        contexts = tls.TrustContexts.of(tls_context(ca_file), probing_context(), own_ca=ca_file is not None)
        return tls.probe(connect, self._name, contexts)

    def _plain(self, connect: Callable[[], socket]) -> tuple[PlainFact, ...]:
        found = [_plain_answer(connect, self._name, self._port)]
        if self._default_port and self._port == 443:
            try:
                at_80 = self._timed(connector(self._name, 80, self._reach, timeout=_CONNECT))
            except RemoteError:  # closed: nothing is served there
                found.append(PlainFact(80, serves=False))
            else:
                found.append(_plain_answer(at_80, self._name, 80))
        return tuple(found)

    def _http(self) -> HttpClient:
        """Without verification, because what is asked is asked of whoever answers; nothing secret goes through it."""
        timeout = httpx.Timeout(5.0, connect=_CONNECT)
        return http_client(
            self.settings,
            own=(self._name,),
            named=self.way.named,
            context=probing_context(),
            timeout=timeout,
            ends=self.ends,
        )

    def _ask_registry(self, facts: RegistryFacts, registry: _Registry, secure: bool) -> RegistryFacts:
        front = self._asked(lambda: registry.send("GET", "/v2/"))
        if isinstance(front, Incomplete):
            access = AccessFacts(front, front, front, front, self.repository)
            return replace(facts, hsts=front, challenges=front, access=access, digest=front, software=front)
        catalog, listed = self._catalog(registry)
        repository = self.repository or listed or self._own_catalog()
        return replace(
            facts,
            hsts=clean_text(front.headers["Strict-Transport-Security"], 200)
            if "Strict-Transport-Security" in front.headers
            else None,
            challenges=_challenges(front, secure),
            access=AccessFacts(
                catalog=catalog,
                pull=self._asked(lambda: self._pull(registry, repository, front)),
                push=self._asked(lambda: self._push(registry, repository)),
                delete=self._asked(lambda: self._delete(registry, repository, front)),
                repository=repository,
            ),
            digest=self._asked(lambda: self._digest(registry, repository)),
            software=self._asked(lambda: self._software(registry, front)),
        )

    def _catalog(self, registry: _Registry) -> tuple[Access | Incomplete, str]:
        """Whether strangers may list repositories, and the first that they are shown."""
        answer = self._asked(lambda: registry.anonymously("GET", "/v2/_catalog?n=1", "registry:catalog:*"))
        if isinstance(answer, Incomplete):
            return answer, ""
        if answer.status == httpx.codes.OK:
            names = _names(answer.body)
            if names is None:
                return Incomplete("unclear_answer", "it answered 200 without a list when asked about the catalog"), ""
            return Access.ALLOWED, names[0] if names else ""
        if answer.status in (401, 403, 404, 405):
            return Access.REFUSED, ""
        return _unclear(answer, "the catalog"), ""

    def _own_catalog(self) -> str:
        """A repository that our own credentials are shown, to ask about. Empty: none."""
        if self._asked(lambda: self.credentials.find(self.host)) is None:
            return ""
        with self._client() as client:
            found = self._asked(lambda: client.catalog(1))
        return found[0] if not isinstance(found, Incomplete) and found else ""

    def _client(self) -> RegistryClient:
        """As a scan would ask: verified TLS (or the plain HTTP that somebody accepted), with credentials."""
        return RegistryClient(self.host, self.settings, self.credentials, self.way, sleep=lambda seconds: None)

    def _pull(self, registry: _Registry, repository: str, front: Answer) -> Access | Incomplete:
        name = repository or NOWHERE
        answer = registry.anonymously("GET", f"/v2/{name}/tags/list?n=1", f"repository:{name}:pull")
        if answer.status == httpx.codes.OK:
            return Access.ALLOWED
        if _is_unknown(answer) and (repository or front.status == httpx.codes.OK):
            return Access.ALLOWED  # it was let in as far as to learn that there is nothing
        if answer.status not in (401, 403, 404):
            return _unclear(answer, "pulling")
        # One door before everything: who is not let in there is let in nowhere. A bearer challenge tells of this
        # repository only.
        return Access.REFUSED if repository or _asks_basic_only(front) else _NO_REPOSITORY

    def _push(self, registry: _Registry, repository: str) -> Access | Incomplete:
        name = repository or NOWHERE
        answer = registry.anonymously("POST", f"/v2/{name}/blobs/uploads/", f"repository:{name}:pull,push")
        if answer.status in (201, 202):
            registry.cancel(answer, f"repository:{name}:pull,push")
            return Access.ALLOWED
        return Access.REFUSED if answer.status in (401, 403, 405) else _unclear(answer, "pushing")

    def _delete(self, registry: _Registry, repository: str, front: Answer) -> Access | Incomplete:
        name = repository or NOWHERE
        answer = registry.anonymously("DELETE", f"/v2/{name}/manifests/{NO_DIGEST}", f"repository:{name}:delete")
        if answer.status in (200, 202):
            return Access.ALLOWED
        if _is_unknown(answer):
            return Access.ALLOWED if repository or front.status == httpx.codes.OK else _NO_REPOSITORY
        return Access.REFUSED if answer.status in (401, 403, 405) else _unclear(answer, "deleting")

    def _digest(self, registry: _Registry, repository: str) -> DigestFact | Incomplete:
        """Ask for a digest that nothing has, and for one manifest by its tag and then by its digest."""
        name = repository or NOWHERE
        for kind in ("manifests", "blobs"):
            answer = registry.anonymously("GET", f"/v2/{name}/{kind}/{NO_DIGEST}", f"repository:{name}:pull")
            if answer.status == httpx.codes.OK:
                return DigestFact(
                    f"it serves {len(answer.body)} bytes as {kind[:-1]} {NO_DIGEST.short}…, which no bytes have"
                )
        if not repository:
            return _NO_REPOSITORY
        with self._client() as client:
            tags = client.tags(repository, 1)
            if not tags:
                return Incomplete("no_manifest", f"{repository} has no tag to ask for")
            return _compared(client, repository, tags[0])

    def _software(self, registry: _Registry, front: Answer) -> SoftwareFact:
        product, version = _product(front.headers)
        answer = self._asked(lambda: registry.send("GET", "/v1/_ping"))
        legacy: bool | Incomplete
        if isinstance(answer, Incomplete):
            legacy = answer
        else:
            legacy = answer.status == httpx.codes.OK and "html" not in answer.headers.get("Content-Type", "")
        return SoftwareFact(product, version, legacy)


@dataclass
class _Registry:
    """The registry as somebody without credentials sees it."""

    owner: _Probe
    http: HttpClient
    base: str

    def send(self, method: str, path: str, token: Secret | None = None) -> Answer:
        """One answer, its body bounded. Raises as httpx does, and RemoteError for a body without end."""
        headers = {"Accept": ", ".join((*ACCEPT, "application/json"))}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        url = self.base + path
        if time.monotonic() > self.owner.ends:
            raise RemoteError("the registry took too long to answer everything", reason="probe_timeout")
        return self._ask(method, url, headers=headers)

    def _ask(self, method: str, url: str, **more: Any) -> Answer:
        return self.http.ask(method, url, limit=_MAX_MANIFEST, seconds=self.owner.ends - time.monotonic(), **more)

    def anonymously(self, method: str, path: str, scope: str) -> Answer:
        """What a client without credentials gets, after it fetched the token that anybody can fetch."""
        answer = self.send(method, path)
        if answer.status != httpx.codes.UNAUTHORIZED:
            return answer
        token = self._token(answer, scope)
        return answer if token is None else self.send(method, path, token)

    def _token(self, answer: Answer, scope: str) -> Secret | None:
        """The token that the token service gives to anybody. None: it gives none."""
        challenge = next(
            (
                c
                for h in answer.headers.get_list("WWW-Authenticate")
                for c in parse_challenges(h)
                if c.scheme == "bearer"
            ),
            None,
        )
        realm = split_address(challenge.parameters.get("realm", "")) if challenge else None
        if challenge is None or realm is None or realm.username:
            return None
        query = {"scope": scope, **({"service": s} if (s := challenge.parameters.get("service")) else {})}
        given = self._ask("GET", challenge.parameters["realm"], params=query)
        if given.status in (400, 401, 403):
            return None
        document = load_untrusted_json(given.body, limit=_MAX_BODY, error=RemoteError)
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        return Secret(token) if isinstance(token, str) and token.isascii() and token.isprintable() else None

    def cancel(self, begun: Answer, scope: str) -> None:
        """Take an upload back that was let begin (distribution-spec: DELETE on its location)."""
        location = begun.headers.get("Location")
        parts = split_address(location, begun.url) if location else None
        if parts is None or parts.netloc != urlsplit(self.base).netloc:
            return  # an address of its choosing; an upload without a byte expires by itself
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        with suppress(httpx.HTTPError, ScannerError):
            self.anonymously("DELETE", path, scope)


def _plain_answer(connect: Callable[[], socket], name: str, port: int) -> PlainFact:
    """What a port says to one plain request, read as bytes: httpx would not speak HTTP to a port that answers in
    TLS.
    """
    with connect() as connection:
        host = f"[{name}]" if ":" in name else name
        connection.sendall(f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii", "replace"))
        data, ends = b"", time.monotonic() + _CONNECT
        with suppress(ConnectionResetError, TimeoutError):
            while len(data) < 8192 and b"\r\n\r\n" not in data and time.monotonic() < ends:
                if not (chunk := connection.recv(4096)):
                    break
                data += chunk
    match = re.match(rb"HTTP/1\.[01] (\d{3})", data)
    if match is None:
        return PlainFact(port, serves=False)
    status = int(match[1])
    location = re.search(rb"(?im)^location:[ \t]*(\S+)", data)
    target = location[1].decode("ascii", "replace")[:300] if location else ""
    to_https = 300 <= status < 400 and target.lower().startswith("https://")
    # 400: "sent an HTTP request to an HTTPS server" (Go, nginx); 421, 426: the same by the book; 497: nginx' own.
    return PlainFact(port, not to_https and status not in (400, 421, 426, 497), status, clean_text(target, 300))


def _challenges(front: Answer, secure: bool) -> tuple[ChallengeFact, ...]:
    found = [c for header in front.headers.get_list("WWW-Authenticate") for c in parse_challenges(header)]
    return tuple(
        ChallengeFact(clean_text(c.scheme, 40), clean_text(c.parameters.get("realm", ""), 300), secure)
        for c in found[:10]
    )


def _asks_basic_only(front: Answer) -> bool:
    """Everything behind one door: who is not let in at ``/v2/`` is let in nowhere.

    A bearer challenge there tells nothing of others.
    """
    found = [c.scheme for header in front.headers.get_list("WWW-Authenticate") for c in parse_challenges(header)]
    return front.status == httpx.codes.UNAUTHORIZED and bool(found) and "bearer" not in found


def _is_unknown(answer: Answer) -> bool:
    return _code(answer) in ("NAME_UNKNOWN", "MANIFEST_UNKNOWN")


def _unclear(answer: Answer, what: str) -> Incomplete:
    code = f" {code}" if (code := _code(answer)) else ""
    return Incomplete("unclear_answer", f"it answered {answer.status}{code} when asked about {what}")


def _code(answer: Answer) -> str:
    """The first error code (distribution-spec, error codes)."""
    if answer.status < 400:
        return ""
    document = _json(answer.body)
    errors = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    return clean_text(str(first.get("code", "")), 60) if isinstance(first, dict) else ""


def _names(data: bytes) -> list[str] | None:
    """Repositories of a catalog's answer. None: it is none."""
    document = _json(data)
    names = document.get("repositories") if isinstance(document, dict) else None
    if not isinstance(document, dict) or "repositories" not in document:
        return None
    return [name for name in names or [] if isinstance(name, str) and _is_repository(name)]


def _is_repository(name: str) -> bool:
    try:
        return Reference.parse(f"registry.invalid/{name}").repository == name
    except UsageError:
        return False


def _json(data: bytes) -> Any:
    try:
        return load_untrusted_json(data, limit=_MAX_BODY, error=RemoteError)
    except RemoteError:
        return None


_VERSION = re.compile(r"(\d{1,4}(?:\.\d{1,5}){1,3})", re.ASCII)


def _product(headers: httpx.Headers) -> tuple[str, str]:
    """What its headers say it is. Empty: they say nothing that is known here."""
    server = headers.get("Server", "")
    for name in ("Nexus", "Harbor", "Artifactory"):
        if server.lower().startswith(name.lower()):
            version = _VERSION.search(server)
            return name, version[1] if version else ""
    return clean_text(server, 100), ""


def _compared(client: RegistryClient, repository: str, tag: str) -> DigestFact:
    """One manifest by its tag and then by its digest: the client refuses other bytes than those asked for."""
    named = Reference(client.host, repository, tag)
    try:
        descriptor, _ = client.manifest(named)
        client.manifest(named.at(descriptor.digest))
    except ImageError as error:
        return DigestFact(clean_text(str(error), 300))
    return DigestFact(asked=f"{repository}:{tag}")
