"""How long to wait before the next request, from the answer's headers.

- ``Retry-After``: seconds or a date (RFC 9110 section 10.2.3).
- ``RateLimit: "name";r=REMAINING;t=SECONDS`` (draft-ietf-httpapi-ratelimit-headers).
- ``RateLimit-Remaining`` and ``RateLimit-Reset``, also with ``X-``: GitHub and GitLab give the reset as a Unix time.
- ``ratelimit-limit: 100;w=21600`` and ``ratelimit-remaining: 76;w=21600`` (Docker Hub): a window without a reset.

A share of each limit is left to the pulls that people and scans make with the same account or address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 86400.0  # a registry may not stop a poll for longer
_SHARE = 0.2  # of each limit, for everybody else
_LEAST_WAIT = 5.0  # requests, where the limit is not told
_EPOCHS = 1_000_000_000  # a larger reset is a Unix time, not a number of seconds
# RateLimit-Remaining: 76;w=21600, as Docker Hub sends it.
_NUMBER = re.compile(r"\s*([0-9]{1,12})\s*(?:;(.*))?", re.ASCII)
_WINDOW = re.compile(r"(?:^|;)\s*w=([0-9]{1,9})", re.ASCII)
_REMAINING, _RESET = (re.compile(rf";\s*{name}=([0-9]{{1,12}})", re.ASCII) for name in "rt")


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds of a ``Retry-After`` header, at most `LONGEST`. None: it is missing or invalid."""
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), LONGEST)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.fromtimestamp(now, UTC)).total_seconds()), LONGEST)


def advised_pause(headers: Mapping[str, str], now: float) -> float:
    """Return the seconds to wait before the next request, at most `LONGEST`. 0: there is no reason to wait.

    ``headers`` are case-insensitive, ``now`` is the Unix time. Invalid headers are ignored.
    """
    return min(max(_of_field(headers), _of_pair(headers, now)), LONGEST)


def _of_field(headers: Mapping[str, str]) -> float:
    text = headers.get("RateLimit", "")[:1000]
    remaining, reset = _REMAINING.search(text), _RESET.search(text)
    if remaining is None or reset is None:
        return 0.0
    quota = re.search(r";\s*q=([0-9]{1,12})", headers.get("RateLimit-Policy", "")[:1000], re.ASCII)
    return float(reset[1]) if _is_low(float(remaining[1]), float(quota[1]) if quota else None) else 0.0


def _of_pair(headers: Mapping[str, str], now: float) -> float:
    for prefix in ("RateLimit", "X-RateLimit"):
        remaining = _NUMBER.fullmatch(headers.get(f"{prefix}-Remaining", "")[:100])
        if remaining is None:
            continue
        limit = _NUMBER.match(headers.get(f"{prefix}-Limit", "")[:100])
        most = float(limit[1]) if limit else None
        if not _is_low(float(remaining[1]), most):
            return 0.0
        reset = _NUMBER.fullmatch(headers.get(f"{prefix}-Reset", "")[:100])
        if reset is not None:
            seconds = float(reset[1])
            return max(0.0, seconds - now if seconds > _EPOCHS else seconds)
        window = _WINDOW.search(remaining[2] or "")
        # A sliding window gives back limit/window requests a second: wait until a tenth of it has come back.
        return float(window[1]) / 10 if window else 60.0
    return 0.0


def _is_low(remaining: float, limit: float | None) -> bool:
    return remaining <= (_LEAST_WAIT if not limit else _SHARE * limit)
