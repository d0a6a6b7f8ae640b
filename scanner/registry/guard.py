"""Outgoing connections: every one resolves once, is vetted, and goes to the vetted address (no DNS rebinding), keeping SNI.

A registry's answer, a redirect or a webhook never chooses where we connect to. Link-local addresses (cloud metadata) and the
like are always refused; loopback and private ranges by setting, because registries normally live there.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpcore
import httpx

from scanner import __version__
from scanner.config import Settings
from scanner.errors import RefusedError, RemoteError, UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
_CONNECT, _READ = 5.0, 30.0


def unwrap(address: Address) -> Address:
    """The IPv4 address inside a v4-mapped, 6to4 or NAT64 one: that is where the packets go."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _SIX_TO_FOUR and address.sixtofour:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def vet(address: Address, settings: Settings) -> None:
    """Raises RefusedError(reason="address_refused") for an address that we do not connect to."""
    inner = unwrap(address)
    refused = (
        inner.is_link_local
        or inner.is_multicast
        or inner.is_unspecified
        or inner.is_reserved
        or (inner.is_loopback and not settings.allow_loopback_addresses)
        or (inner.is_private and not inner.is_loopback and not settings.allow_private_addresses)
    )
    if refused:
        raise RefusedError(
            f"connections to {address} are not allowed",
            reason="address_refused",
            hint="see allow_private_addresses in docs/settings.md",
        )


def resolve(host: str, port: int, settings: Settings) -> list[str]:
    """Addresses of ``host``, each vetted. Raises RefusedError, or RemoteError(reason="unknown_host")."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise RemoteError(
            f"there is no host {host!r}", reason="unknown_host", hint="check the name and the DNS", retryable=False
        ) from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    for address in addresses:
        vet(ipaddress.ip_address(address.partition("%")[0]), settings)
    return addresses


class _VettedBackend(httpcore.SyncBackend):
    """Connects to addresses that ``resolve`` has vetted; TLS still verifies the name of the URL."""

    def __init__(self, settings: Settings, allowed: Callable[[str, int], bool]) -> None:
        self._settings, self._allowed = settings, allowed

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
        for address in resolve(host, port, self._settings):
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                last = error
        raise last or httpcore.ConnectError(f"cannot connect to {host}:{port}")


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


def http_client(
    settings: Settings,
    *,
    allowed: Callable[[str, int], bool] = lambda host, port: True,
    ca_file: Path | None = None,
    verify: bool = True,
    headers: Iterable[tuple[str, str]] = (),
) -> httpx.Client:
    """The only way Dockwarden speaks HTTP to others: vetted addresses, no proxies or credentials from the environment, no automatic
    redirects, no content encodings (a compressed answer can be a bomb)."""
    transport = httpx.HTTPTransport(verify=tls_context(ca_file, verify=verify), trust_env=False, retries=0)
    transport._pool._network_backend = _VettedBackend(settings, allowed)
    return httpx.Client(
        transport=transport,
        timeout=httpx.Timeout(_READ, connect=_CONNECT),
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": f"dockwarden/{__version__}", "Accept-Encoding": "identity", **dict(headers)},
    )
