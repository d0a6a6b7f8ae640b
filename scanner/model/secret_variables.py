"""Detection of secrets in environment variables, by name or by pattern of the value."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scanner.patterns import lazy

_NAME = lazy(
    r"(?:^|_)(?:PASS|PASSWD|PASSWORD|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|ENCRYPTION_?KEY|CREDENTIALS?|AUTH)"
    r"(?:$|_(?:KEY|VALUE|B64|BASE64)$)"
)
# Suffixes of variables that refer to a secret or configure one.
_POINTER = lazy(r"_(?:FILE|PATH|NAME|URL|ID|TTL|EXPIRY|EXPIRATION|LENGTH|POLICY|METHOD|TYPE|ENABLED|HEADER)$")
_PLACEHOLDER = lazy(
    r"(?:\$\{?\w+\}?|\$\(.*\)|\$\{.*\}|<[^>]*>|\{\{.*\}\}|/[\w./-]+|true|false|yes|no|none|null|\d{1,3}|\*+|x+)",
    re.IGNORECASE,
)
_VALUE = lazy(
    r"-----BEGIN [A-Z ]*PRIVATE "
    r"KEY-----|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{22}"
    r"|\bglpat-[\w-]{20}|\bxox[abprs]-[\w-]{10}|\bsk_live_[A-Za-z0-9]{16}|\bAIza[\w-]{35}"
)
# Only from where a scheme can begin: from each letter of a long word, the search would take quadratic time.
_URL = lazy(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^/\s:@]*:([^/\s@]+)@", re.IGNORECASE)


def spans(value: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each secret that shows by its form: a key, a token, a password in a URL."""
    yield from (found.span() for found in _VALUE.finditer(value))
    yield from (found.span(1) for found in _URL.finditer(value) if not _PLACEHOLDER.fullmatch(found[1]))


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable's value is a secret. A reference (``PASSWORD_FILE=/run/secrets/x``) is not."""
    return next(spans(value), None) is not None or is_named_secret(name, value)


def is_named_secret(name: str, value: str) -> bool:
    """Return whether a name is typical of a secret, and the value is no reference to one."""
    upper = name.upper()
    return bool(_NAME.search(upper)) and not _POINTER.search(upper) and not _PLACEHOLDER.fullmatch(value.strip())
