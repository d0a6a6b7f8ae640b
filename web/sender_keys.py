"""Public keys and certificates of webhook senders, fetched from addresses that we derive, never from the payload.

A document is kept no longer than its caller allows, so that a rotated key is found. A few addresses are cached.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import httpx

from scanner.config import Settings
from scanner.errors import RemoteError
from scanner.outbound import AnswerTooLarge, http_client

_LIMIT, _SECONDS, _REMEMBERED = 256 << 10, 10.0, 32


class SenderKeys:
    """A cache of documents by address. ``ask`` fetches one; only one thread calls it at a time."""

    def __init__(self, ask: Callable[[str], bytes]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, bytes]] = {}

    @classmethod
    def of(cls, settings: Settings) -> SenderKeys:
        return cls(partial(_ask, settings))

    def __call__(self, address: str, max_age: float) -> bytes:
        """Return the document at ``address``, at most ``max_age`` seconds old. 0: always fetched, never cached.

        Raises RemoteError, not retryable if there is no such document.
        """
        with self._lock:
            known = self._known.get(address)
            if known and time.monotonic() - known[0] <= max_age:
                return known[1]
            found = self._ask(address)
            if max_age > 0:
                while len(self._known) >= _REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[address] = time.monotonic(), found
            return found


def _ask(settings: Settings, address: str) -> bytes:
    host = urlsplit(address).hostname
    try:
        with http_client(settings, ca_file=settings.ca_file) as client:
            answer = client.ask("GET", address, limit=_LIMIT, seconds=_SECONDS)
    except AnswerTooLarge as error:
        raise RemoteError(f"the answer of {host} is too large", reason="sender_unavailable") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RemoteError(f"cannot reach {host}: {type(error).__name__}", reason="sender_unavailable") from error
    if answer.status != httpx.codes.OK:
        missing = 400 <= answer.status < 500 and answer.status != httpx.codes.TOO_MANY_REQUESTS
        message = f"{host} answered {answer.status}"
        raise RemoteError(message, reason="sender_unavailable", retryable=not missing)
    return answer.body
