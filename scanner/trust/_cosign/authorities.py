"""The sigstore instance behind keyless signatures and transparency logs, as a trust root describes it.

Each part has a period for which it is trusted (``validFor`` in trusted_root.json). A log whose key was stolen is
retired by ending its period: later entries do not count, although the log's signature still verifies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from scanner.trust._pki import PublicKey
from scanner.trust.base import SignatureRefused


@dataclass(frozen=True)
class Period:
    """A period with both ends included. None: open on that side."""

    start: datetime | None = None
    end: datetime | None = None

    def holds(self, at: datetime) -> bool:
        return (self.start is None or self.start <= at) and (self.end is None or at <= self.end)

    def require(self, at: datetime, what: str, reason: str) -> None:
        """Raise SignatureRefused(reason=``reason``) if ``at`` is outside. ``what`` names the part in the message."""
        if not self.holds(at):
            start = f"{self.start:%Y-%m-%d}" if self.start else "the beginning"
            end = f"{self.end:%Y-%m-%d}" if self.end else "now"
            raise SignatureRefused(f"{what} is trusted from {start} to {end}, not at {at:%Y-%m-%d}", reason=reason)


ALWAYS = Period()


@dataclass(frozen=True)
class Log:
    """A transparency log: Rekor (signatures) or a CT log (certificates)."""

    key: PublicKey
    period: Period = ALWAYS


@dataclass(frozen=True)
class Authority:
    """A certificate authority (all its certificates are trust anchors) or a timestamp authority (signing certificate
    first).
    """

    certificates: tuple[x509.Certificate, ...]
    period: Period = ALWAYS


@dataclass(frozen=True)
class Authorities:
    """The parts of an instance. ``rekor`` and ``ctfe`` are keyed by log id (hex), as signatures and SCTs name it."""

    fulcio: tuple[Authority, ...] = ()
    rekor: Mapping[str, Log] = field(default_factory=dict)
    ctfe: Mapping[str, Log] = field(default_factory=dict)
    tsa: tuple[Authority, ...] = ()
