"""Documents of other servers that requests need: metadata and keys of identity providers, keys of webhook senders.

A slow server must hold no more threads than the one that reads from it. One thread at a time fetches a document, and a
few at a time fetch any. The others get the former document while it may still be used, wait a moment, or are refused.
A failure is remembered for a moment, so that requests do not wait one after another for a server that is away.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from scanner.errors import RemoteError

T = TypeVar("T")
_FAILED_SECONDS = 5.0  # a person who tries again soon should not meet an old failure
_WAIT_SECONDS = 3.0
# Documents; the oldest goes.
_REMEMBERED = 32


@dataclass(frozen=True)
class _CachedDocument(Generic[T]):
    value: T
    at: float


class RemoteDocuments(Generic[T]):
    """A cache by key. ``at_once``: how many documents are fetched concurrently."""

    def __init__(
        self, at_once: int, *, clock: Callable[[], float] = time.monotonic, wait_seconds: float = _WAIT_SECONDS
    ) -> None:
        self._at_once, self._clock, self._wait_seconds = at_once, clock, wait_seconds
        self._changed = threading.Condition()
        self._known: OrderedDict[str, _CachedDocument[T]] = OrderedDict()
        self._failed: OrderedDict[str, _CachedDocument[RemoteError]] = OrderedDict()
        self._fetching: set[str] = set()

    def get(self, key: str, fetch: Callable[[], T], max_age: float, *, stale: float = 0.0) -> T:
        """Return the document, at most ``max_age`` seconds old. 0: always fetched, never cached.

        ``stale``: seconds beyond ``max_age`` for which the former one is used while it cannot be fetched, or another
        thread fetches it. Raises what ``fetch`` raises, and RemoteError while others fetch.
        """
        found = self._ready_or_mine(key, max_age, stale)
        if found is not None:
            return found.value
        try:
            value = fetch()
        except RemoteError as error:
            self._end(key, failed=_CachedDocument(error, self._clock()))
            former = self._former(key, max_age + stale) if stale else None
            if former is None:
                raise
            return former.value
        except BaseException:
            self._end(key)
            raise
        self._end(key, known=_CachedDocument(value, self._clock()) if max_age > 0 else None)
        return value

    def _ready_or_mine(self, key: str, max_age: float, stale: float) -> _CachedDocument[T] | None:
        """Return a document that may be used. None: this thread must fetch it. Raises RemoteError."""
        ends = time.monotonic() + self._wait_seconds
        with self._changed:
            while True:
                if max_age > 0 and (found := self._former(key, max_age)) is not None:
                    return found
                former = self._former(key, max_age + stale) if stale else None
                failed = self._failed.get(key) if max_age > 0 else None
                if failed is not None and self._clock() - failed.at <= _FAILED_SECONDS:
                    if former is not None:
                        return former
                    error = failed.value
                    raise RemoteError(str(error), reason=error.reason, hint=error.hint, retryable=error.retryable)
                if key not in self._fetching and len(self._fetching) < self._at_once:
                    self._fetching.add(key)
                    return None
                if former is not None:
                    return former
                if not self._changed.wait(max(0.0, ends - time.monotonic())):
                    raise RemoteError("another server is slow to answer", reason="busy", hint="try again in a minute")

    def _former(self, key: str, oldest: float) -> _CachedDocument[T] | None:
        known = self._known.get(key)
        return known if known is not None and self._clock() - known.at <= oldest else None

    def _end(
        self, key: str, known: _CachedDocument[T] | None = None, failed: _CachedDocument[RemoteError] | None = None
    ) -> None:
        with self._changed:
            self._fetching.discard(key)
            self._failed.pop(key, None)
            if known is not None:
                _keep(self._known, key, known)
            if failed is not None:
                _keep(self._failed, key, failed)
            self._changed.notify_all()


def _keep(among: OrderedDict[str, _CachedDocument[T]], key: str, value: _CachedDocument[T]) -> None:
    among[key] = value
    among.move_to_end(key)
    while len(among) > _REMEMBERED:
        among.popitem(last=False)
