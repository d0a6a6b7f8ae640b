"""Outgoing connections: each host is resolved once, its addresses are checked, and the connection goes to a checked
address (against DNS rebinding), with the host's name in SNI.

Each answer has limits of size (also decompressed), time and rate, headers included. An answer, redirect or payload
never chooses where we connect to. Link-local addresses (cloud metadata) and similar ones are always refused. Loopback
and private ranges are a setting, because many registries are there.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore
import httpx

from scanner import __version__
from scanner.config import Settings
from scanner.errors import RefusedError, RemoteError, UsageError
from scanner.files import read_whole
from scanner.model.untrusted import network_reason
from scanner.patterns import lazy

# OpenSSL's X509_V_ERR_* (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED, _HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH = 9, 10, 62, 64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291 section 2.5.5.1
# Addresses outside the link-local ranges where clouds give out credentials: EC2 and EKS on IPv6, Compute Engine on
# IPv6, Alibaba, Oracle, and Azure's wire server.
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    )
)
# Seconds, and addresses of a name that are tried.
_CONNECT, _READ, _MAX_ADDRESSES = 5.0, 30.0, 6
_WINDOW_SECONDS, _MIN_RATE = 20.0, 64 << 10  # minimum rate in each window of waiting, bytes a second
_ANSWER_SECONDS, _HEADER_SECONDS = 60.0, 60.0
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# RFC 8288, section 3.
_LINK = lazy(rf"<([^<>]*)>((?:\s*;\s*{_NAME}+(?:\s*=\s*(?:\"[^\"]*\"|{_NAME}*))?)*)")
# With the semicolon, so that a long name without a value is looked at once and not from each of its characters.
_PARAMETER = lazy(rf";\s*({_NAME}+)\s*=\s*(?:\"([^\"]*)\"|({_NAME}*))")
USUAL_PORTS = {"https": 443, "http": 80}
_OVERHEAD = 1024  # compression can make small or random data larger
_ENDS, _HEADERS_END, _NEVER = "dockwarden.ends", "dockwarden.headers_end", float("inf")
Resolver = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True)
class Reach:
    """Which addresses may be connected to.

    ``own``: host names that a person chose. Other names come from an answer (a redirect, a token service). They may
    lead to the public internet and, by setting, to private ranges, but to this machine only if an own host is on it.
    None: all names are own. ``named``: a person gave the own hosts on the command line, so any address is allowed for
    them. ``only``: every name must lead to one of these addresses, and they are allowed although others like them are
    not: the services that give a machine its own cloud identity.
    """

    settings: Settings
    own: frozenset[str] | None = None
    named: bool = False
    only: frozenset[Address] | None = None

    def is_own(self, host: str) -> bool:
        return self.own is None or plain_name(host) in self.own

    def vet(self, host: str, address: Address) -> None:
        """Raises RefusedError(reason="address_refused") if ``host`` must not lead to this address."""
        if self.only is not None:
            if address not in self.only:
                raise RefusedError(f"connections to {address} are not allowed", reason="address_refused")
            return
        own = self.is_own(host)
        if own and self.named and self.own is not None:
            return
        vet(address, self.settings, loopback=None if own or self._is_here() else False)

    def _is_here(self) -> bool:
        """Whether an own host is on this machine: then the names it leads to may be as well."""
        return any(name == "localhost" or _is_loopback(name) for name in self.own or ())


def plain_name(host: str) -> str:
    """Normalise a host name for comparison: lower case, no brackets, no trailing dot."""
    return host.strip("[]").rstrip(".").lower()


def _is_loopback(name: str) -> bool:
    try:
        return unwrap(ipaddress.ip_address(name)).is_loopback
    except ValueError:
        return False


def unwrap(address: Address) -> Address:
    """The IPv4 address inside a v4-mapped, v4-compatible, 6to4, Teredo or NAT64 one, because packets are routed to
    it.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.sixtofour:
            return address.sixtofour
        if address.teredo:
            return address.teredo[1]
        if any(address in network for network in _NAT64) or (address in _COMPATIBLE and int(address) > 1):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def vet(address: Address, settings: Settings, *, loopback: bool | None = None) -> None:
    """Raises RefusedError(reason="address_refused") for an address that we do not connect to.

    ``loopback`` None: as the setting ``allow_loopback_addresses``.
    """
    inner = unwrap(address)
    loopback = settings.allow_loopback_addresses if loopback is None else loopback
    never = inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in _METADATA
    if not never and inner.is_loopback:
        refused = not loopback
    else:
        # Shared address space (RFC 6598) and site-local addresses are not public either.
        public = inner.is_global and not getattr(inner, "is_site_local", False)
        refused = never or inner.is_reserved or (not public and not settings.allow_private_addresses)
    if refused:
        raise RefusedError(
            f"connections to {address} are not allowed",
            reason="address_refused",
            hint="see allow_private_addresses in docs/settings.md",
        )


def split_address(text: str, base: str = "") -> SplitResult | None:
    """Split an address from an answer, relative to ``base``.

    Returns None unless it is an http or https address that both parsers read alike: parsers that disagree about the
    host allow bypassing the address check.
    """
    try:
        text = urljoin(base, text)
        parts, other = urlsplit(text), httpx.URL(text)
        # The second parser leaves out the usual port of a scheme.
        usual = USUAL_PORTS.get(parts.scheme)
        same = plain_name(parts.hostname or "") == plain_name(other.host)
        same = same and (parts.port or usual) == (other.port or usual)
    except (ValueError, httpx.InvalidURL):
        return None
    return parts if same and parts.scheme in ("http", "https") and parts.hostname else None


def look_up(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver. Raises OSError or UnicodeError."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def resolve(
    host: str, port: int, settings: Settings, reach: Reach | None = None, look: Resolver | None = None
) -> list[str]:
    """Resolve ``host`` and check every address.

    One forbidden address refuses the host, because its DNS cannot be trusted.

    Raises RefusedError, or RemoteError(reason="unknown_host").
    """
    if not 0 < port < 65536:  # the system's resolver uses it modulo 65536, which would be a different port
        raise RemoteError(f"invalid port {port}", reason="unknown_host", hint="use 1 to 65535", retryable=False)
    try:
        found = (look or look_up)(host.strip("[]"), port)
    except (OSError, UnicodeError) as error:
        raise RemoteError(
            f"unknown host {host!r}", reason="unknown_host", hint="check the name and the DNS", retryable=False
        ) from error
    addresses = list(dict.fromkeys(found))
    for address in addresses:
        (reach or Reach(settings)).vet(host, ipaddress.ip_address(address.partition("%")[0]))
    return addresses


def connector(
    host: str, port: int, reach: Reach, *, timeout: float = _CONNECT, look: Resolver | None = None
) -> Callable[[], socket.socket]:
    """Return a function that opens TCP connections to one checked address of ``host``: the first that answers.

    Raises RefusedError, or RemoteError(reason="unknown_host" or "registry_unreachable").
    """
    last: OSError | None = None
    for address in resolve(host, port, reach.settings, reach, look)[:_MAX_ADDRESSES]:
        try:
            socket.create_connection((address, port), timeout).close()
        except OSError as error:
            last = error
        else:
            return partial(socket.create_connection, (address, port), timeout)
    raise RemoteError(
        f"cannot reach {host}:{port}: {network_reason(last) if last else 'it has no address'}",
        reason="registry_unreachable",
    )


class AnswerTooLarge(RemoteError):
    """An answer, or its decompressed body, is larger than the caller's limit."""

    default_reason = "answer_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is larger than {limit} bytes", retryable=False)


class _Exchange:
    """One request and its answer, with its deadline and minimum rate.

    httpx limits each read, not their sum: one byte every 29 seconds would never time out. Only time spent waiting
    counts, because slow decompression or hashing in our code is not the server's fault. Each window is checked
    separately: otherwise a server could send a gigabyte at once, then one byte a second, and keep a good average for
    hours.
    """

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self._begun = False
        self._waited, self._received = 0.0, 0

    @contextmanager
    def current(self) -> Iterator[None]:
        """Assign all reads and writes of this thread, meanwhile, to this exchange."""
        before, _THREAD.exchange = getattr(_THREAD, "exchange", None), self
        try:
            yield
        finally:
            _THREAD.exchange = before

    def left(self, timeout: float | None, error: type[Exception]) -> float:
        """Seconds that one read or write may take. Raises ``error`` if the deadline has passed."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise error("the time limit for this answer has passed")
        if self._begun:
            left = min(left, _WINDOW_SECONDS - self._waited)
        return left if timeout is None else min(timeout, left)

    def note(self, size: int, seconds: float) -> None:
        """Count ``size`` bytes after ``seconds`` of waiting. Raises httpcore.ReadTimeout if the rate is too low."""
        if not self._begun:  # the wait for the first byte is limited by the time-outs, not by the rate
            self._begun = size > 0
            return
        self._waited += seconds
        self._received += size
        if self._waited >= _WINDOW_SECONDS:
            # Only time spent waiting for the server counts: a slow disk or a busy worker is not the server's fault.
            if self._received < _MIN_RATE * self._waited:
                raise httpcore.ReadTimeout("the answer arrives too slowly")
            self._waited, self._received = 0.0, 0


_THREAD = threading.local()


class _PacedStream(httpcore.NetworkStream):
    """A connection that serves exchanges one after another, each within its deadline and rate."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    @property
    def _exchange(self) -> _Exchange:
        return _THREAD.exchange  # type: ignore[no-any-return]

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        exchange, started = self._exchange, time.monotonic()
        timeout = exchange.left(timeout, httpcore.ReadTimeout)
        try:
            data = self._stream.read(max_bytes, max(timeout, 0.001))
        except httpcore.ReadTimeout as error:
            raise httpcore.ReadTimeout("no answer in time, or it arrives too slowly") from error
        exchange.note(len(data), time.monotonic() - started)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._exchange.left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._exchange.left(timeout, httpcore.ConnectTimeout)
        return _PacedStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _PacedBody(httpx.SyncByteStream):
    """The body of an answer. Its reads belong to the answer's exchange."""

    def __init__(self, stream: httpx.SyncByteStream, exchange: _Exchange) -> None:
        self._stream, self._exchange = stream, exchange

    def __iter__(self) -> Iterator[bytes]:
        chunks = iter(self._stream)
        while True:
            with self._exchange.current():
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        self._stream.close()


class _PacedTransport(httpx.HTTPTransport):
    """httpx's transport with an exchange around each request."""

    def __init__(self, context: ssl.SSLContext, backend: httpcore.NetworkBackend, ends: float) -> None:
        super().__init__(verify=context, trust_env=False, retries=0)
        self._pool._network_backend = backend
        self._ends = ends

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport.handle_request`."""
        whole = min(self._ends, request.extensions.get(_ENDS, _NEVER))
        patience = request.extensions["timeout"].get("read") or 0.0
        # Status and headers have their own deadline: a server can repeat "100 Continue" forever, at a sufficient rate.
        headers_end = time.monotonic() + max(_HEADER_SECONDS, patience + _WINDOW_SECONDS)
        exchange = _Exchange(min(whole, headers_end, request.extensions.get(_HEADERS_END, _NEVER)))
        with exchange.current():
            response = super().handle_request(request)
        exchange.ends = whole
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _PacedBody(response.stream, exchange)
        return response


class _VettedBackend(httpcore.SyncBackend):
    """Connects to addresses that ``resolve`` has checked. TLS still verifies the name in the URL."""

    def __init__(self, reach: Reach, allowed: Callable[[str, int], bool], look: Resolver | None) -> None:
        self._reach, self._allowed, self._look = reach, allowed, look

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> Any:
        if not self._allowed(host, port):
            raise RefusedError(
                f"{host}:{port} is not a configured registry or server",
                reason="address_refused",
                hint="add the registry first",
            )
        last: Exception | None = None
        # Resolved once, checked and then used: a second look-up by the library could give another address (DNS
        # rebinding).
        for address in resolve(host, port, self._reach.settings, self._reach, self._look)[:_MAX_ADDRESSES]:
            left = _THREAD.exchange.left(timeout, httpcore.ConnectTimeout)
            try:
                return _PacedStream(super().connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last or httpcore.ConnectError(f"cannot connect to {host}:{port}")

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        """Always refused: no URL may lead to a Unix socket."""
        raise RefusedError(f"connections to {path} are not allowed", reason="address_refused")


# Bytes: bundles of all public authorities have a quarter of a megabyte.
_MAX_CA_FILE = 16 << 20


def tls_context(ca_file: Path | None, *, verify: bool = True) -> ssl.SSLContext:
    """Our TLS context: 1.2 or newer, certificates and names verified.

    ``ca_file`` is trusted in addition to the system's CAs.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            # OpenSSL would read a device for ever. PEM is ASCII; bundles hold comments in other encodings.
            pem = read_whole(ca_file, _MAX_CA_FILE, "the CA certificates").decode("ascii", "ignore")
            context.load_verify_locations(cadata=pem)
        except (ValueError, ssl.SSLError) as error:
            raise UsageError(
                f"cannot read CA certificates from {ca_file}",
                hint="give a file with PEM certificates (-----BEGIN CERTIFICATE-----)",
            ) from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """Return the TLS error that caused ``error``. None: TLS was not the cause."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause


def certificate_hint(refused: ssl.SSLCertVerificationError, otherwise: str) -> str:
    """What a user can do about a refused certificate. ``otherwise``: how to trust another authority.

    Trusting one is no remedy for a certificate of another name or time: a user who tried would turn verification off.
    """
    if refused.verify_code in (_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH):
        return "use an address that the certificate is for, or a certificate for this address"
    if refused.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return "renew the certificate; if it is valid, set the clock of this machine"
    return otherwise


def probing_context() -> ssl.SSLContext:
    """A context for probes only: it accepts any certificate and the oldest protocol OpenSSL has. Never send secrets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return speak_old(context)


def speak_old(context: ssl.SSLContext) -> ssl.SSLContext:
    """Allow a probe's context to connect to servers with old protocols, which our own context refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the probe looks for old versions
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@dataclass(frozen=True)
class Answer:
    """A whole answer. The body is within the caller's limit."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str  # after redirects


class OpenAnswer:
    """An answer whose body has not been read yet."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status, self.headers, self.url = response.status_code, response.headers, str(response.url)

    @property
    def encoding(self) -> str:
        """The content encoding; "identity" if there is none."""
        return str(self.headers.get("Content-Encoding", "identity")).strip().lower()

    def link(self, relation: str) -> str | None:
        """The target of a Link header (RFC 8288).

        The library's own parser takes no relation in capitals, no list of them and no ``;`` in an address, so the next
        page would look like the last one.
        """
        for header in self._response.headers.get_list("Link"):
            for target, parameters in _LINK.findall(header):
                for name, quoted, plain in _PARAMETER.findall(parameters):
                    if name.lower() == "rel" and relation in (quoted or plain).lower().split():
                        return str(target).strip()
        return None

    def chunks(self, limit: int) -> Iterator[bytes]:
        """Yield the body as transmitted. Raises AnswerTooLarge beyond ``limit`` bytes, httpx.HTTPError."""
        size = 0
        for chunk in self._response.iter_raw():
            size += len(chunk)
            if size > limit:
                raise AnswerTooLarge(limit)
            yield chunk

    def body(self, limit: int) -> bytes:
        """Read the whole body.

        It is decompressed if the server compressed it, although we ask for identity (some proxies do).

        The limit applies during decompression, because 64 KiB of gzip can become 64 MiB. Raises AnswerTooLarge for more
        than ``limit`` bytes, transmitted or decompressed, httpx.DecodingError, httpx.HTTPError.
        """
        if self.encoding == "identity":
            return b"".join(self.chunks(limit))
        return b"".join(_decompressed(self.chunks(limit + _OVERHEAD), self.encoding, limit))


def _decompressed(chunks: Iterable[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise httpx.DecodingError(f"the answer has the unsupported encoding {encoding[:40]!r}")
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | (32 if encoding != "deflate" else 0))
    size = 0
    try:
        for chunk in chunks:
            # One byte more than allowed, to tell "exactly at the limit" from "beyond it".
            plain = decompressor.decompress(chunk, limit - size + 1)
            size += len(plain)
            if size > limit:
                raise AnswerTooLarge(limit)
            yield plain
    except zlib.error as error:
        raise httpx.DecodingError("the answer's compressed data is invalid") from error
    if not decompressor.eof or decompressor.unused_data:
        raise httpx.DecodingError("the answer's compressed data is truncated, or followed by other data")


def _after(seconds: float | None) -> float:
    """Monotonic time in ``seconds`` from now."""
    return _NEVER if seconds is None else time.monotonic() + seconds


class HttpClient:
    """An HTTP client. Its only methods are ``open`` and ``ask``, so that the limits cannot be bypassed."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        *,
        seconds: float | None = None,
        header_seconds: float | None = None,
        read_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        json: object = None,
        content: bytes | None = None,
        auth: httpx.Auth | None = None,
    ) -> Iterator[OpenAnswer]:
        """Send a request and yield the answer with its body unread.

        ``seconds`` limits the whole exchange, ``header_seconds`` everything before the body, ``read_seconds`` the wait
        for each piece (None: the client's default). The body must arrive at 64 KiB/s or more, checked every 20 seconds.

        Raises httpx.HTTPError, RefusedError for forbidden addresses, RemoteError for an unknown host.
        """
        timeout = self._http.timeout
        if read_seconds is not None:
            timeout = httpx.Timeout(read_seconds, connect=min(_CONNECT, read_seconds))
        request = self._http.build_request(
            method,
            url,
            headers=headers,
            params=params,
            data=form,
            json=json,
            content=content,
            timeout=timeout,
            extensions={_ENDS: _after(seconds), _HEADERS_END: _after(header_seconds)},
        )
        response = self._http.send(request, stream=True, auth=auth or httpx.USE_CLIENT_DEFAULT)
        try:
            yield OpenAnswer(response)
        finally:
            response.close()

    def ask(self, method: str, url: str, *, limit: int, seconds: float = _ANSWER_SECONDS, **more: Any) -> Answer:
        """Send a request and read the whole answer. Raises as `open` and `OpenAnswer.body` do."""
        with self.open(method, url, seconds=seconds, **more) as answer:
            return Answer(answer.status, answer.headers, answer.body(limit), answer.url)


def http_client(
    settings: Settings,
    *,
    own: Iterable[str] | None = None,
    named: bool = False,
    only: Iterable[Address] | None = None,
    allowed: Callable[[str, int], bool] = lambda host, port: True,
    ca_file: Path | None = None,
    verify: bool = True,
    context: ssl.SSLContext | None = None,
    headers: Iterable[tuple[str, str]] = (),
    base_url: str = "",
    timeout: httpx.Timeout | None = None,
    ends: float | None = None,
    look: Resolver | None = None,
) -> HttpClient:
    """The only HTTP client of Dockwarden: checked addresses, limited answers, no proxies or credentials from the
    environment, no automatic redirects, no compression requested.

    ``own``, ``named`` and ``only``: see ``Reach``. ``ends``: monotonic time after which nothing is read.
    """
    own_names = None if own is None else frozenset(map(plain_name, own))
    reach = Reach(settings, own_names, named, None if only is None else frozenset(only))
    transport = _PacedTransport(
        context or tls_context(ca_file, verify=verify),
        _VettedBackend(reach, allowed, look),
        _NEVER if ends is None else ends,
    )
    return HttpClient(
        httpx.Client(
            base_url=base_url,
            transport=transport,
            timeout=timeout or httpx.Timeout(_READ, connect=_CONNECT),
            # A redirect could carry credentials to another host, or lead to an address that the first check refused.
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": f"dockwarden/{__version__}", "Accept-Encoding": "identity", **dict(headers)},
        )
    )
