"""Signatures of requests to AWS, version 4.

https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html, for requests with a whole body.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

from scanner.config import Secret

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Keys:
    """An access key. ``session``: the token that belongs to a temporary one. ``seconds``: how long it is valid."""

    access_key: str
    secret: Secret = field(repr=False)
    session: Secret = field(default=Secret(""), repr=False)
    seconds: float = float("inf")


def signed_headers(
    method: str, url: str, headers: Mapping[str, str], body: bytes, keys: Keys, region: str, service: str, now: datetime
) -> dict[str, str]:
    """Return the headers with those that sign the request. All given headers are signed."""
    parts = urlsplit(url)
    at = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    all_headers = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    all_headers |= {"host": parts.netloc, "x-amz-date": at}
    if keys.session:
        all_headers["x-amz-security-token"] = keys.session.reveal()
    names = ";".join(sorted(all_headers))
    pairs = sorted((_encoded(n), _encoded(v)) for n, v in parse_qsl(parts.query, keep_blank_values=True))
    request = "\n".join(
        (
            method,
            quote(parts.path or "/", safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{all_headers[name]}" for name in sorted(all_headers)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{at[:8]}/{region}/{service}/aws4_request"
    text = "\n".join((_ALGORITHM, at, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = b"AWS4" + keys.secret.reveal().encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**all_headers, "authorization": authorization}


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")
