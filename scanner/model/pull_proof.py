"""How a pull gate recognises the pulls of its own server's scanner, which must see an image before it can be allowed.

The proof is made for one registry host and five minutes, because that registry and whatever stands before it can read
it: there it opens nothing that they do not hold anyway, and elsewhere it is worth nothing.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable

from scanner.patterns import lazy

HEADER = "X-Dockwarden-Pull"
_SECONDS = 300  # a proof is for the pulls of one scan, so it ends soon
_CLOCKS_APART = 60  # seconds by which the clocks of two hosts may differ
# <end of validity>.<HMAC-SHA256>
_TEXT = lazy(r"([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)


def make(key: str, host: str, now: float) -> str:
    """The header's value for a request to ``host``."""
    ends = int(now) + _SECONDS
    return f"{ends}.{_mac(key, host, ends)}"


def holds(keys: Iterable[str], host: str, text: str, now: float) -> bool:
    """Whether ``text`` was made with one of these keys for this host, and has not ended."""
    found = _TEXT.fullmatch(text)
    if found is None or not now <= int(found[1]) <= now + _SECONDS + _CLOCKS_APART:
        return False
    return any(hmac.compare_digest(_mac(each, host, int(found[1])), found[2]) for each in keys)


def _mac(key: str, host: str, ends: int) -> str:
    return hmac.new(key.encode(), f"dockwarden pull|{host}|{ends}".encode(), "sha256").hexdigest()
