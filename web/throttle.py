"""Token buckets, in this process: what one source may ask for, whatever it tries.

In memory on purpose: one web process serves SQLite, and several behind PostgreSQL multiply a limit by their number,
which is no more than a constant. Flask-Limiter costs 0.8 ms on each limited request; this costs microseconds.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from scanner.errors import RefusedError

_MAX_SOURCES = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, refilled at ``per_second``."""

    burst: float
    per_second: float


SIGN_IN_ACCOUNT = Rate(5, 5 / 60)
SIGN_IN_ADDRESS = Rate(20, 20 / 60)
SIGN_IN_ACCOUNT_FAILURES = Rate(100, 0.5)  # of one account, from everywhere together
SIGN_IN_FAILURES = Rate(300, 5)  # of all accounts, from everywhere together
BAD_TOKEN_ADDRESS = Rate(60, 1)
API = Rate(1200, 20)
SCANS = Rate(300, 5)
WEBHOOK = Rate(500, 100)
PULL = Rate(10_000, 1000)  # of one proxy's token: an image is a manifest and dozens of blobs
ADMISSION = Rate(5000, 500)  # of one cluster's token: a refusal is an error to its API server


def source_of(address: str | None) -> str:
    """Key of a source: an IPv4 address, or an IPv6 /64, which one subscriber owns."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


class Throttle:
    """Buckets by (name, source). The least recently used is forgotten past ``_MAX_SOURCES``, so memory is bounded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, name: str, source: str, rate: Rate, cost: float = 1) -> None:
        """Take from the bucket, or raise RefusedError(rate_limited) saying when there will be enough again."""
        with self._lock:
            level = self._level(name, source, rate)
            if level < cost:
                wait = (cost - level) / rate.per_second
                raise RefusedError(
                    "too many requests", reason="rate_limited", hint=f"wait {wait:.0f} seconds", retry_after=wait
                )
            self._buckets[name, source] = (level - cost, self._clock())

    def check(self, name: str, source: str, rate: Rate) -> None:
        """Raise as ``take`` would, and take nothing: for a limit on failures, which is taken from after one."""
        with self._lock:
            level = self._level(name, source, rate)
        if level < 1:
            wait = (1 - level) / rate.per_second
            raise RefusedError(
                "too many failed attempts", reason="rate_limited", hint=f"wait {wait:.0f} seconds", retry_after=wait
            )

    def spend(self, name: str, source: str, rate: Rate) -> None:
        """Take one, down to nothing, without raising."""
        with self._lock:
            self._buckets[name, source] = (max(0.0, self._level(name, source, rate) - 1), self._clock())

    def _level(self, name: str, source: str, rate: Rate) -> float:
        level, at = self._buckets.get((name, source), (rate.burst, self._clock()))
        self._buckets[name, source] = (level, at)
        self._buckets.move_to_end((name, source))
        while len(self._buckets) > _MAX_SOURCES:
            self._buckets.popitem(last=False)
        return min(rate.burst, level + (self._clock() - at) * rate.per_second)
