"""Public keys and certificates of webhook senders, fetched from addresses that we derive, never from the payload.

A document is kept no longer than its caller allows, so that a rotated key is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import httpx

from scanner.config import Settings
from scanner.errors import RemoteError
from scanner.outbound import AnswerTooLarge, http_client
from web.remote_documents import RemoteDocuments

_LIMIT, _SECONDS = 256 << 10, 10.0
_AT_ONCE = 2  # of the threads that answer webhooks


class SenderKeys:
    """A cache of documents by address. ``ask`` fetches one."""

    def __init__(self, ask: Callable[[str], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._documents: RemoteDocuments[bytes] = RemoteDocuments(_AT_ONCE, clock=clock)

    @classmethod
    def of(cls, settings: Settings) -> SenderKeys:
        return cls(partial(_ask, settings))

    def __call__(self, address: str, max_age: float) -> bytes:
        """Return the document at ``address``, at most ``max_age`` seconds old. 0: always fetched, never cached.

        Raises RemoteError, not retryable if there is no such document.
        """
        return self._documents.get(address, partial(self._ask, address), max_age)


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
