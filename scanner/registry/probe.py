"""Probes how a registry protects itself. Collects facts; ``scanner.checks.registry`` judges them.

A probe leaves nothing behind and removes nothing: an accepted upload is cancelled, and the deletion it requests is of a
digest that cannot exist. Credentials are sent for two questions only (which repositories exist, whether digests hold),
over verified TLS or a plain HTTP that is configured. Connections, time and answers are bounded.
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
from scanner.patterns import lazy
from scanner.registry import tls
from scanner.registry.auth import CredentialStore, parse_challenges
from scanner.registry.client import Access as Way
from scanner.registry.client import RegistryClient
from scanner.registry.manifest import ACCEPT

T = TypeVar("T")
_SECONDS = 45.0  # for all requests to one registry together
# Seconds for one connection.
_CONNECT = 4.0
_MAX_BODY = 1 << 20
_MAX_MANIFEST = 4 << 20
NOWHERE = "dockwarden-probe/does-not-exist"
NO_DIGEST = Digest("sha256:" + "0" * 64)  # no known content has this digest
_NO_REPOSITORY = Incomplete(
    "no_repository", "no repository of this registry is known: give --repository, or scan one of its images"
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
    """Collect the facts about ``host`` within ``seconds``. What cannot be determined is Incomplete in the facts.

    Raises RefusedError if the host must not be connected to, RemoteError if it does not exist or answer, UsageError for
    unreadable CA certificates.
    """
    # Fail early: an unreadable CA file would otherwise look like an untrusted registry.
    tls_context((way or Way()).ca_file or settings.ca_file)
    return _Probe(host, settings, credentials, way or Way(), repository, time.monotonic() + seconds).run()


@dataclass
class _Probe:
    host: str
    settings: Settings
    credentials: CredentialStore
    way: Way
    repository: str  # to ask about; empty: one that the registry lists
    ends: float  # monotonic clock: the time for all requests together

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
        connect = self._time_limited(connector(self._name, self._port, self._reach, timeout=_CONNECT))
        with connect() as first:
            address = clean_text(str(first.getpeername()[0]), 64)
        facts = RegistryFacts(self.host, self._port, address, datetime.now(UTC))
        tls_facts = self._try(lambda: self._tls(connect))
        facts = replace(facts, tls=tls_facts, plain=self._try(lambda: self._probe_plain_http(connect)))
        secure = isinstance(tls_facts, TlsFacts) and any(fact.accepted is True for fact in tls_facts.versions)
        with self._http() as http:
            return self._ask_registry(
                facts, _Registry(self, http, f"{'https' if secure else 'http'}://{self._address}"), secure
            )

    def _try(self, ask: Callable[[], T]) -> T | Incomplete:
        """Return the answer of ``ask``, or Incomplete with the error."""
        if time.monotonic() > self.ends:
            return Incomplete("probe_timeout", "the registry took too long to answer all requests")
        try:
            return ask()
        except (httpx.HTTPError, OSError, ScannerError) as error:
            return Incomplete("no_answer", clean_text(f"{error or type(error).__name__}", 300))

    def _time_limited(self, connect: Callable[[], socket]) -> Callable[[], socket]:
        """Limit new connections to the time that is left. They raise TimeoutError afterwards."""

        def timed() -> socket:
            left = self.ends - time.monotonic()
            if left <= 0:
                raise TimeoutError("the registry took too long to answer all requests")
            connection = connect()
            connection.settimeout(min(_CONNECT, left))
            return connection

        return timed

    def _tls(self, connect: Callable[[], socket]) -> TlsFacts | Incomplete | None:
        ca_file = self.way.ca_file or self.settings.ca_file
        contexts = tls.TrustContexts.of(tls_context(ca_file), probing_context(), own_ca=ca_file is not None)
        return tls.probe(connect, self._name, contexts)

    def _probe_plain_http(self, connect: Callable[[], socket]) -> tuple[PlainFact, ...]:
        found = [_plain_answer(connect, self._name, self._port)]
        # A client that is configured for plain HTTP uses port 80 where TLS uses 443.
        if self._default_port and self._port == 443:
            try:
                at_80 = self._time_limited(connector(self._name, 80, self._reach, timeout=_CONNECT))
            except RemoteError:  # the port is closed
                found.append(PlainFact(80, serves=False))
            else:
                found.append(_plain_answer(at_80, self._name, 80))
        return tuple(found)

    def _http(self) -> HttpClient:
        """A client without TLS verification, because facts are wanted about any server.

        No secret is sent through it.
        """
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
        # Nothing else is asked of a server that does not answer this: each further request would cost its time limit.
        front = self._try(lambda: registry.send("GET", "/v2/"))
        if isinstance(front, Incomplete):
            access = AccessFacts(front, front, front, front, self.repository)
            return replace(facts, hsts=front, challenges=front, access=access, digest=front, software=front)
        catalog, first_listed = self._catalog(registry)
        repository = self.repository or first_listed or self._own_catalog()
        return replace(
            facts,
            hsts=clean_text(front.headers["Strict-Transport-Security"], 200)
            if "Strict-Transport-Security" in front.headers
            else None,
            challenges=_challenges(front, secure),
            access=AccessFacts(
                catalog=catalog,
                pull=self._try(lambda: self._pull(registry, repository, front)),
                push=self._try(lambda: self._push(registry, repository)),
                delete=self._try(lambda: self._delete(registry, repository, front)),
                repository=repository,
            ),
            digest=self._try(lambda: self._digest(registry, repository)),
            software=self._try(lambda: self._software(registry, front)),
        )

    def _catalog(self, registry: _Registry) -> tuple[Access | Incomplete, str]:
        """Whether anonymous users may list repositories, and the first that they see."""
        answer = self._try(lambda: registry.anonymously("GET", "/v2/_catalog?n=1", "registry:catalog:*"))
        if isinstance(answer, Incomplete):
            return answer, ""
        if answer.status == httpx.codes.OK:
            names = _names(answer.body)
            if names is None:
                return Incomplete(
                    "unclear_answer", "the request for the catalog was answered with 200, but without a list"
                ), ""
            return Access.ALLOWED, names[0] if names else ""
        if answer.status in (401, 403, 404, 405):
            return Access.REFUSED, ""
        return _unclear(answer, "the catalog"), ""

    def _own_catalog(self) -> str:
        """A repository that our own credentials can see. Empty if there is none."""
        if self._try(lambda: self.credentials.find(self.host)) is None:
            return ""
        with self._client() as client:
            found = self._try(lambda: client.catalog(1))
        return found[0] if not isinstance(found, Incomplete) and found else ""

    def _client(self) -> RegistryClient:
        """A client as a scan uses it: verified TLS (or the plain HTTP that is configured), with credentials."""
        # No pauses: the probe has a time limit of its own, and a registry that asks to wait is answered "unknown".
        return RegistryClient(self.host, self.settings, self.credentials, self.way, sleep=lambda seconds: None)

    def _pull(self, registry: _Registry, repository: str, front: Answer) -> Access | Incomplete:
        name = repository or NOWHERE
        answer = registry.anonymously("GET", f"/v2/{name}/tags/list?n=1", f"repository:{name}:pull")
        if answer.status == httpx.codes.OK:
            return Access.ALLOWED
        if _is_unknown(answer) and (repository or front.status == httpx.codes.OK):
            return Access.ALLOWED  # the request passed access control: the registry looked for the repository
        if answer.status not in (401, 403, 404):
            return _unclear(answer, "pulling")
        # With Basic authentication the whole registry has one access check: a client that fails at /v2/ fails
        # everywhere. A bearer challenge is about one repository, so a refusal for an invented one proves nothing about
        # the others.
        return Access.REFUSED if repository or _asks_basic_only(front) else _NO_REPOSITORY

    def _push(self, registry: _Registry, repository: str) -> Access | Incomplete:
        name = repository or NOWHERE
        answer = registry.anonymously("POST", f"/v2/{name}/blobs/uploads/", f"repository:{name}:pull,push")
        # An upload that has begun is enough to know; no byte is sent.
        if answer.status in (201, 202):
            registry.cancel(answer, f"repository:{name}:pull,push")
            return Access.ALLOWED
        return Access.REFUSED if answer.status in (401, 403, 405) else _unclear(answer, "pushing")

    def _delete(self, registry: _Registry, repository: str, front: Answer) -> Access | Incomplete:
        name = repository or NOWHERE
        # A digest that nothing has: if the registry allows it, nothing is lost.
        answer = registry.anonymously("DELETE", f"/v2/{name}/manifests/{NO_DIGEST}", f"repository:{name}:delete")
        if answer.status in (200, 202):
            return Access.ALLOWED
        if _is_unknown(answer):
            return Access.ALLOWED if repository or front.status == httpx.codes.OK else _NO_REPOSITORY
        return Access.REFUSED if answer.status in (401, 403, 405) else _unclear(answer, "deleting")

    def _digest(self, registry: _Registry, repository: str) -> DigestFact | Incomplete:
        """Request a digest that nothing can have, and one manifest by tag and then by digest."""
        name = repository or NOWHERE
        for kind in ("manifests", "blobs"):
            answer = registry.anonymously("GET", f"/v2/{name}/{kind}/{NO_DIGEST}", f"repository:{name}:pull")
            if answer.status == httpx.codes.OK:
                return DigestFact(
                    f"it serves {len(answer.body)} bytes as {kind[:-1]} {NO_DIGEST.short}…, a digest that no "
                    "content has"
                )
        if not repository:
            return _NO_REPOSITORY
        with self._client() as client:
            tags = client.tags(repository, 1)
            if not tags:
                return Incomplete("no_manifest", f"{repository} has no tag that could be requested")
            return _compare_digests(client, repository, tags[0])

    def _software(self, registry: _Registry, front: Answer) -> SoftwareFact:
        product, version = _product(front.headers)
        answer = self._try(lambda: registry.send("GET", "/v1/_ping"))
        legacy: bool | Incomplete
        if isinstance(answer, Incomplete):
            legacy = answer
        else:
            # A web page for every address answers 200 as well.
            legacy = answer.status == httpx.codes.OK and "html" not in answer.headers.get("Content-Type", "")
        return SoftwareFact(product, version, legacy)


@dataclass
class _Registry:
    """The registry as an anonymous client sees it."""

    owner: _Probe
    http: HttpClient
    base: str

    def send(self, method: str, path: str, token: Secret | None = None) -> Answer:
        """Send one request and read the bounded answer. Raises httpx.HTTPError, RemoteError."""
        headers = {"Accept": ", ".join((*ACCEPT, "application/json"))}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        url = self.base + path
        if time.monotonic() > self.owner.ends:
            raise RemoteError("the registry took too long to answer all requests", reason="probe_timeout")
        return self._ask(method, url, headers=headers)

    def _ask(self, method: str, url: str, **more: Any) -> Answer:
        return self.http.ask(method, url, limit=_MAX_MANIFEST, seconds=self.owner.ends - time.monotonic(), **more)

    def anonymously(self, method: str, path: str, scope: str) -> Answer:
        """Return the answer for a client without credentials, after it fetched an anonymous token."""
        answer = self.send(method, path)
        if answer.status != httpx.codes.UNAUTHORIZED:
            return answer
        token = self._token(answer, scope)
        return answer if token is None else self.send(method, path, token)

    def _token(self, answer: Answer, scope: str) -> Secret | None:
        """The token that the token service gives to anonymous clients, or None."""
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
        """Cancel an upload that the registry accepted (distribution-spec: DELETE on its location)."""
        location = begun.headers.get("Location")
        parts = split_address(location, begun.url) if location else None
        if parts is None or parts.netloc != urlsplit(self.base).netloc:
            return  # the registry must not choose where we connect to; an empty upload expires by itself
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        with suppress(httpx.HTTPError, ScannerError):
            self.anonymously("DELETE", path, scope)


def _plain_answer(connect: Callable[[], socket], name: str, port: int) -> PlainFact:
    """Return the answer of a port to one plain HTTP request, read as bytes: httpx fails if the port answers in TLS."""
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
    # 400: "sent an HTTP request to an HTTPS server" (Go, nginx); 421, 426: the standard codes for that; 497: nginx's
    # own.
    return PlainFact(port, not to_https and status not in (400, 421, 426, 497), status, clean_text(target, 300))


def _challenges(front: Answer, secure: bool) -> tuple[ChallengeFact, ...]:
    found = [c for header in front.headers.get_list("WWW-Authenticate") for c in parse_challenges(header)]
    return tuple(
        ChallengeFact(clean_text(c.scheme, 40), clean_text(c.parameters.get("realm", ""), 300), secure)
        for c in found[:10]
    )


def _asks_basic_only(front: Answer) -> bool:
    """True if the registry has one access check for everything (Basic authentication at ``/v2/``), so that a refusal
    there applies to every repository.
    """
    found = [c.scheme for header in front.headers.get_list("WWW-Authenticate") for c in parse_challenges(header)]
    return front.status == httpx.codes.UNAUTHORIZED and bool(found) and "bearer" not in found


def _is_unknown(answer: Answer) -> bool:
    return _code(answer) in ("NAME_UNKNOWN", "MANIFEST_UNKNOWN")


def _unclear(answer: Answer, what: str) -> Incomplete:
    code = f" {code}" if (code := _code(answer)) else ""
    return Incomplete("unclear_answer", f"it answered {answer.status}{code} when asked about {what}")


def _code(answer: Answer) -> str:
    """The first error code of an answer (distribution-spec, error codes)."""
    if answer.status < 400:
        return ""
    document = _json(answer.body)
    errors = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    return clean_text(str(first.get("code", "")), 60) if isinstance(first, dict) else ""


def _names(data: bytes) -> list[str] | None:
    """The repositories in a catalog's answer. None if it is not one."""
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


_VERSION = lazy(r"(\d{1,4}(?:\.\d{1,5}){1,3})", re.ASCII)


def _product(headers: httpx.Headers) -> tuple[str, str]:
    """Name and version of the product by its headers. Empty if unknown."""
    server = headers.get("Server", "")
    for name in ("Nexus", "Harbor", "Artifactory"):
        if server.lower().startswith(name.lower()):
            version = _VERSION.search(server)
            return name, version[1] if version else ""
    return clean_text(server, 100), ""


def _compare_digests(client: RegistryClient, repository: str, tag: str) -> DigestFact:
    """Fetch one manifest by tag and then by digest. The client refuses content that does not match."""
    named = Reference(client.host, repository, tag)
    try:
        descriptor, _ = client.manifest(named)
        client.manifest(named.at(descriptor.digest))
    except ImageError as error:
        return DigestFact(clean_text(str(error), 300))
    return DigestFact(asked=f"{repository}:{tag}")
