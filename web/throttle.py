"""Token buckets in this process: limits by source.

In memory on purpose. With SQLite there is one web process; behind PostgreSQL several processes multiply a limit by
their number, which is acceptable. Flask-Limiter costs 0.8 ms for each limited request; this costs microseconds.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flask import request

from scanner.errors import RefusedError

# Addresses that are remembered: an attacker has many.
_MAX_SOURCES = 10_000
_SOURCE = "dockwarden.throttle_source"  # in the environment of the request


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket of ``burst`` tokens, refilled at ``per_second``."""

    burst: float
    per_second: float


SIGN_IN_ACCOUNT = Rate(5, 5 / 60)
SIGN_IN_ADDRESS = Rate(20, 20 / 60)
SIGN_IN_ACCOUNT_FAILURES = Rate(100, 0.5)  # one account, from all addresses together
SIGN_IN_FAILURES = Rate(300, 5)  # all accounts, from all addresses together
BAD_TOKEN_ADDRESS = Rate(60, 1)
API = Rate(1200, 20)
SCANS = Rate(300, 5)
DOOR_SCANS = Rate(1000, 20)  # new scans by the gate, or by one kind of door; those of one client have the rate SCANS
WEBHOOK = Rate(500, 100)
PULL = Rate(10_000, 1000)  # one proxy's token. An image is a manifest and dozens of blobs
HARBOR = Rate(5000, 100)  # one Harbor's token. High, because Harbor fails a scan whose request is refused once
ADMISSION = Rate(5000, 500)  # one cluster's token. High, because its API server treats a refusal as an error


def source_of(address: str | None) -> str:
    """The key of a source: an IPv4 address, or an IPv6 /64, because one subscriber has a whole /64."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


def request_source() -> str:
    """The source of the current request, parsed once: several buckets ask for it."""
    known: str | None = request.environ.get(_SOURCE)
    if known is None:
        known = request.environ[_SOURCE] = source_of(request.remote_addr)
    return known


class Throttle:
    """Buckets by (name, source). Beyond ``_MAX_SOURCES`` the least recently used is dropped, so memory is limited."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, name: str, source: str, rate: Rate, cost: float = 1) -> None:
        """Take ``cost`` tokens. Raises RefusedError("rate_limited") with the time until there are enough."""
        with self._lock:
            level = self._level(name, source, rate)
            if level < cost:
                wait = (cost - level) / rate.per_second
                raise RefusedError(
                    "too many requests", reason="rate_limited", hint=f"wait {wait:.0f} seconds", retry_after=wait
                )
            self._buckets[name, source] = (level - cost, self._clock())

    def check(self, name: str, source: str, rate: Rate, message: str = "too many failed attempts") -> None:
        """Raise as ``take`` would, without taking: for limits on failures, which are counted after the fact."""
        with self._lock:
            level = self._level(name, source, rate)
        if level < 1:
            wait = (1 - level) / rate.per_second
            raise RefusedError(message, reason="rate_limited", hint=f"wait {wait:.0f} seconds", retry_after=wait)

    def spend(self, name: str, source: str, rate: Rate) -> None:
        """Take one token, not below zero. Never raises."""
        with self._lock:
            self._buckets[name, source] = (max(0.0, self._level(name, source, rate) - 1), self._clock())

    def _level(self, name: str, source: str, rate: Rate) -> float:
        level, at = self._buckets.get((name, source), (rate.burst, self._clock()))
        self._buckets[name, source] = (level, at)
        self._buckets.move_to_end((name, source))
        while len(self._buckets) > _MAX_SOURCES:
            self._buckets.popitem(last=False)
        return min(rate.burst, level + (self._clock() - at) * rate.per_second)
