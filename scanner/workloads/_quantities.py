"""Sizes, quantities and durations in the syntax of the formats."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from scanner.patterns import lazy

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_KUBERNETES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
MOST = (1 << 63) - 1  # what Go's int64 holds, which every runtime keeps these numbers in
# apimachinery, resource.Quantity
_QUANTITY = lazy(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]{1,3})?)([numkMGTPE]|[KMGTPE]i)?")
# https://github.com/docker/go-units RAMInBytes: every unit is a power of 1024, with or without "i" and "b".
_RAM = lazy(r"([0-9.]+)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_DURATION = lazy(r"([0-9.]+)(ns|us|µs|ms|s|m|h|d)")  # Go's time.ParseDuration, and days
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def quantity(text: str) -> Decimal | None:
    """Parse a Kubernetes quantity. None: not a quantity."""
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        return None
    try:
        return min(Decimal(MOST), max(Decimal(-MOST), Decimal(found[1]) * _KUBERNETES[found[2] or ""]))
    except InvalidOperation:
        return None


def ram(text: str) -> int | None:
    """Parse a size of Docker or Compose (``512m``, ``1.5gb``, ``1024``) to bytes. None: not a size."""
    found = _RAM.fullmatch(text.strip())
    if found is None:
        return None
    try:
        return capped_number(Decimal(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " "))
    except InvalidOperation:
        return None


def seconds(text: str) -> float | None:
    """Parse a duration (``1m30s``) to seconds. None: not a duration."""
    total, at = 0.0, 0
    for found in _DURATION.finditer(text.strip()):
        # Every part has to begin where the one before ended: `finditer` skips what it does not match.
        if found.start() != at or found[1].count(".") > 1 or found[1] == ".":
            return None
        total, at = total + float(found[1]) * _SECONDS[found[2]], found.end()
    return min(total, float(MOST)) if at and at == len(text.strip()) else 0.0 if text.strip() == "0" else None


def whole_number(text: str) -> int | None:
    """A whole number in ASCII digits, as every runtime reads one; None for what is none, or is larger than 64 bits."""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None


def capped_number(value: Decimal | float) -> int:
    """As a whole number of at most 64 bits: Kubernetes, too, takes a larger quantity for the largest that there is."""
    return int(min(max(value, -MOST), MOST))
