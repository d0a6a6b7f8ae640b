"""Outgoing connections: every one resolves once, is vetted, and goes to the vetted address (no DNS rebinding), keeping SNI.

A registry's answer, a redirect or a webhook never chooses where we connect to. Link-local addresses (cloud metadata) and the
like are always refused; loopback and private ranges by setting, because registries normally live there.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
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

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291 section 2.5.5.1
# Where clouds answer with credentials, outside the link-local ranges: EC2 on IPv6, Alibaba, Oracle, Azure's wire server.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")))
_CONNECT, _READ, _MAX_ADDRESSES = 5.0, 30.0, 6
Resolver = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True)
class Reach:
    """How far connections may go. ``own``: host names that somebody chose; every other name was chosen by an answer (a redirect, a token
    service), and may lead to the public internet and, by setting, to private ranges, but to this machine only
    from this machine. None: all are own.

    ``named``: a person named the own hosts on the command line, so they are reached wherever they are.
    """

    settings: Settings
    own: frozenset[str] | None = None
    named: bool = False

    def is_own(self, host: str) -> bool:
        return self.own is None or plain_name(host) in self.own

    def vet(self, host: str, address: Address) -> None:
        """Raises RefusedError(reason="address_refused") for an address that ``host`` must not lead us to."""
        own = self.is_own(host)
        if own and self.named and self.own is not None:
            return
        vet(address, self.settings, loopback=None if own or self._is_here() else False)

    def _is_here(self) -> bool:
        """Whether an own host is on this machine: then what it leads to may be here too."""
        return any(name == "localhost" or _is_loopback(name) for name in self.own or ())


def plain_name(host: str) -> str:
    """A host's name as names are compared: lower case, no brackets, no final dot."""
    return host.strip("[]").rstrip(".").lower()


def _is_loopback(name: str) -> bool:
    try:
        return unwrap(ipaddress.ip_address(name)).is_loopback
    except ValueError:
        return False


def unwrap(address: Address) -> Address:
    """The IPv4 address inside a v4-mapped, v4-compatible, 6to4, Teredo or NAT64 one: that is where the packets go."""
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
    """Raises RefusedError(reason="address_refused") for an address that we do not connect to. ``loopback`` None: as the setting says."""
    inner = unwrap(address)
    loopback = settings.allow_loopback_addresses if loopback is None else loopback
    never = inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in _METADATA
    if not never and inner.is_loopback:
        refused = not loopback
    else:
        # Shared space (RFC 6598) and site-local addresses are nobody's public ones either.
        public = inner.is_global and not getattr(inner, "is_site_local", False)
        refused = never or inner.is_reserved or (not public and not settings.allow_private_addresses)
    if refused:
        raise RefusedError(
            f"connections to {address} are not allowed",
            reason="address_refused",
            hint="see allow_private_addresses in docs/settings.md",
        )


def split_address(text: str, base: str = "") -> SplitResult | None:
    """The parts of an address that an answer gave, relative to ``base``. None for what is no address of http or https, in anybody's reading: two parsers that
    disagree about a host are how requests are smuggled."""
    try:
        text = urljoin(base, text)
        parts, other = urlsplit(text), httpx.URL(text)
        same = plain_name(parts.hostname or "") == plain_name(other.host) and parts.port == other.port
    except (ValueError, httpx.InvalidURL):
        return None
    return parts if same and parts.scheme in ("http", "https") and parts.hostname else None


def look_up(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says. Raises OSError or UnicodeError."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def resolve(
    host: str, port: int, settings: Settings, reach: Reach | None = None, look: Resolver | None = None
) -> list[str]:
    """Addresses of ``host``, each vetted: one bad address among them refuses the host, because whoever answers for that name is bad.

    Raises RefusedError, or RemoteError(reason="unknown_host").
    """
    if not 0 < port < 65536:  # the system's resolver takes it modulo 65536: another port than the one that was named
        raise RemoteError(f"there is no port {port}", reason="unknown_host", hint="1 to 65535", retryable=False)
    try:
        found = (look or look_up)(host.strip("[]"), port)
    except (OSError, UnicodeError) as error:
        raise RemoteError(
            f"there is no host {host!r}", reason="unknown_host", hint="check the name and the DNS", retryable=False
        ) from error
    addresses = list(dict.fromkeys(found))
    for address in addresses:
        (reach or Reach(settings)).vet(host, ipaddress.ip_address(address.partition("%")[0]))
    return addresses


def connector(
    host: str, port: int, reach: Reach, *, timeout: float = _CONNECT, look: Resolver | None = None
) -> Callable[[], socket.socket]:
    """Makes new TCP connections to one vetted address of ``host``: resolved once, and the first address that answers is kept.

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
    raise RemoteError(f"cannot reach {host}:{port}: {last}", reason="registry_unreachable")


class _Hurried(httpcore.NetworkStream):
    """A connection that ends at a moment, however slowly bytes drip: httpx bounds each read, not all of them together."""

    def __init__(self, stream: httpcore.NetworkStream, ends: float) -> None:
        self._stream, self._ends = stream, ends

    def _left(self, timeout: float | None, error: type[Exception]) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise error("the time for this host is over")
        return left if timeout is None else min(timeout, left)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._left(timeout, httpcore.ConnectTimeout)
        return _Hurried(self._stream.start_tls(ssl_context, server_hostname, left), self._ends)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _VettedBackend(httpcore.SyncBackend):
    """Connects to addresses that ``resolve`` has vetted; TLS still verifies the name of the URL."""

    def __init__(
        self, reach: Reach, allowed: Callable[[str, int], bool], look: Resolver | None, ends: float | None
    ) -> None:
        self._reach, self._allowed, self._look, self._ends = reach, allowed, look, ends

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
        for address in resolve(host, port, self._reach.settings, self._reach, self._look)[:_MAX_ADDRESSES]:
            try:
                stream = super().connect_tcp(address, port, timeout, local_address, socket_options)
                return stream if self._ends is None else _Hurried(stream, self._ends)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last or httpcore.ConnectError(f"cannot connect to {host}:{port}")

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        """No URL leads to a socket of this machine."""
        raise RefusedError(f"connections to {path} are not allowed", reason="address_refused")


def tls_context(ca_file: Path | None, *, verify: bool = True) -> ssl.SSLContext:
    """Our TLS: 1.2 or newer, certificates and names verified; ``ca_file`` is trusted beside the system's CAs."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"cannot read CA certificates from {ca_file}", hint="it must be a PEM file") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def probing_context() -> ssl.SSLContext:
    """For probes alone: takes any certificate and speaks as old as OpenSSL can. Nothing secret ever goes through it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return speak_old(context)


def speak_old(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let a probe's context shake hands with servers that ours refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are the point
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def http_client(
    settings: Settings,
    *,
    own: Iterable[str] | None = None,
    named: bool = False,
    allowed: Callable[[str, int], bool] = lambda host, port: True,
    ca_file: Path | None = None,
    verify: bool = True,
    context: ssl.SSLContext | None = None,
    headers: Iterable[tuple[str, str]] = (),
    base_url: str = "",
    timeout: httpx.Timeout | None = None,
    ends: float | None = None,
    look: Resolver | None = None,
) -> httpx.Client:
    """The only way Dockwarden speaks HTTP to others: vetted addresses, no proxies or credentials from the environment, no automatic
    redirects, no content encodings (a compressed answer can be a bomb). ``own`` and ``named``: see ``Reach``;
    ``ends``: a moment of the monotonic clock after which nothing is read any more."""
    reach = Reach(settings, None if own is None else frozenset(map(plain_name, own)), named)
    transport = httpx.HTTPTransport(verify=context or tls_context(ca_file, verify=verify), trust_env=False, retries=0)
    transport._pool._network_backend = _VettedBackend(reach, allowed, look, ends)
    return httpx.Client(
        base_url=base_url,
        transport=transport,
        timeout=timeout or httpx.Timeout(_READ, connect=_CONNECT),
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": f"dockwarden/{__version__}", "Accept-Encoding": "identity", **dict(headers)},
    )
