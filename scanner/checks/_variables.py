"""Detection of secrets in environment variables, by name or by pattern of the value."""

from __future__ import annotations

import re

from scanner.patterns import lazy

_NAME = lazy(
    r"(?:^|_)(?:PASS|PASSWD|PASSWORD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|ENCRYPTION_?KEY|CREDENTIALS?|AUTH)"
    r"(?:$|_(?:KEY|VALUE|B64|BASE64)$)"
)
# Suffixes of variables that refer to a secret or configure one.
_POINTER = lazy(r"_(?:FILE|PATH|NAME|URL|ID|TTL|EXPIRY|EXPIRATION|LENGTH|POLICY|METHOD|TYPE|ENABLED|HEADER)$")
_PLACEHOLDER = lazy(
    r"(?:\$\{?\w+\}?|<[^>]*>|\{\{.*\}\}|/[\w./-]+|true|false|yes|no|none|null|\d{1,3}|\*+|x+)", re.IGNORECASE
)
_VALUE = lazy(
    r"-----BEGIN [A-Z ]*PRIVATE "
    r"KEY-----|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{22}"
    r"|\bglpat-[\w-]{20}|\bxox[abprs]-[\w-]{10}|\bsk_live_[A-Za-z0-9]{16}|\bAIza[\w-]{35}"
)
_URL = lazy(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:([^/\s@]+)@", re.IGNORECASE)


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable's value is a secret. A reference (``PASSWORD_FILE=/run/secrets/x``) is not."""
    if _VALUE.search(value):
        return True
    url = _URL.search(value)
    if url is not None and not _PLACEHOLDER.fullmatch(url[1]):
        return True
    upper = name.upper()
    return bool(_NAME.search(upper)) and not _POINTER.search(upper) and not _PLACEHOLDER.fullmatch(value.strip())
