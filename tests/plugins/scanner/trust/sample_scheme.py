"""A sample: a scheme that has no signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scanner.errors import UsageError
from scanner.model.finding import TrustStatus, Verification
from scanner.trust.base import TrustJob, TrustScheme


class SampleScheme(TrustScheme):
    """Signatures that no image has."""

    id = "sample-scheme"
    title = "Sample scheme"

    def verify(self, job: TrustJob) -> tuple[Verification, ...]:
        """See ``TrustScheme.verify``."""
        return (Verification(self.id, TrustStatus.NOT_SIGNED),)

    def parse_trust(self, data: bytes, where: str) -> Mapping[str, Any]:
        """See ``TrustScheme.parse_trust``."""
        raise UsageError(f"{where}: not a trust root of the sample scheme")
