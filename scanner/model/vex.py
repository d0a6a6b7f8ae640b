"""VEX statements (OpenVEX 0.2.0, CycloneDX) by suppliers or by us about a vulnerability in a product."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from scanner.lazy_dataclasses import dataclass


class VexStatus(StrEnum):
    NOT_AFFECTED = "not_affected"
    AFFECTED = "affected"
    FIXED = "fixed"
    UNDER_INVESTIGATION = "under_investigation"


@dataclass(frozen=True, slots=True)
class VexStatement:
    """A VEX statement.

    ``products``: purls or image digests. ``justification``: required for not_affected (OpenVEX, status).
    ``subcomponents``: the statement applies to these parts of the products only; empty: to all parts.
    """

    vulnerability: str
    products: tuple[str, ...]
    status: VexStatus
    justification: str = ""
    impact: str = ""  # why it is not affected, in the author's words
    author: str = ""
    timestamp: datetime | None = None  # None: the document gives no time
    subcomponents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exemption:
    """A local waiver: an accepted violation with an owner, a reason and an expiry.

    It has no effect without approval or after ``expires_at``. ``rule``, ``subject``: what it covers ("" is any; not
    both empty). ``images``: repository patterns, or a digest. ``purl``: limits it to one package. ``while_unfixed``,
    ``while_unexploited``: it was approved for a vulnerability without a fix, or not known to be exploited, and ends
    when that changes.
    """

    id: str
    owner: str
    justification: str
    expires_at: datetime
    images: tuple[str, ...]
    rule: str = ""
    subject: str = ""
    purl: str = ""
    approved_by: str = ""  # another person than ``owner``
    while_unfixed: bool = False
    while_unexploited: bool = False
