"""JSON Web Tokens (RFC 7519) that identity providers sign: their claims, after the signature was verified.

The library parses the header of a stranger's token before it verifies anything, with a parser that has no bounds. So
each part is read by our own parser first.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from scanner.errors import RefusedError
from scanner.model.untrusted import load_untrusted_json

LIMIT = 256 << 10
_DEPTH = 16


def verified_claims(token: str, keys: KeySet, algorithms: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the claims of a token that one of ``keys`` signed; None for everything else.

    No claim is compared here, not even the end of the token's life.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(token) > LIMIT or any(unverified_part(part) is None for part in parts[:2]):
        return None
    try:
        return jwt.decode(token, keys, algorithms=list(algorithms)).claims
    except (JoseError, ValueError, KeyError, TypeError):
        return None


def unverified_part(text: str) -> Mapping[str, Any] | None:
    """The JSON object in the header or payload of a token, before any verification. None if it is not one."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        found = load_untrusted_json(raw, limit=LIMIT, depth=_DEPTH, error=RefusedError)
    except (binascii.Error, ValueError, RefusedError):
        return None
    return found if isinstance(found, dict) else None


def moment(value: object) -> float | None:
    """A NumericDate (RFC 7519, section 2). None for what is no finite number: every comparison with NaN is false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return found if math.isfinite(found) else None
