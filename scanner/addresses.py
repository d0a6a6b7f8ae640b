"""Addresses that a person writes: in an option, a setting or a document."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from scanner.errors import UsageError
from scanner.patterns import lazy

# RFC 1123, and underscores, which internal names have; a closing dot is the root.
_HOST = lazy(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
# Browsers and URL libraries differ in how they read these, so none may be in an address.
_BLANK = lazy(r"[\s\x00-\x1f\x7f\\]")


def web_address(
    text: str, what: str, *, schemes: Sequence[str] = ("https", "http"), hint: str = "write https://host[:port]"
) -> SplitResult:
    """Split an address of http or https.

    Raises UsageError naming ``what`` (the option or setting) for any other scheme, a host or port that cannot be, and
    characters on whose meaning parsers disagree.
    """
    try:
        parts = urlsplit(text)
        usable = (
            parts.scheme in schemes
            and is_host(parts.hostname or "")
            and (parts.port is None or 0 < parts.port < 65536)
            and not _BLANK.search(text)
        )
    except ValueError:  # an unclosed bracket, a port that is no number or too large
        usable = False
    if not usable:
        raise UsageError(f"{what}: {text[:200]!r} is not a URL with a valid host and port", hint=hint)
    return parts


def is_host(text: str) -> bool:
    """Whether this is an IP address (IPv6 without brackets) or can be a host name."""
    try:
        ipaddress.ip_address(text.partition("%")[0])
        return True
    except ValueError:
        pass
    try:
        name = text.encode("idna").decode()
    except UnicodeError:  # an empty or overlong label
        return False
    return len(name) <= 254 and _HOST.fullmatch(name) is not None
