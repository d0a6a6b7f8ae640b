"""VEX statements (OpenVEX 0.2.0, CycloneDX): what a supplier or we say about a vulnerability in a product."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class VexStatus(StrEnum):
    NOT_AFFECTED = "not_affected"
    AFFECTED = "affected"
    FIXED = "fixed"
    UNDER_INVESTIGATION = "under_investigation"


@dataclass(frozen=True, slots=True)
class VexStatement:
    """``products`` are purls or image digests; ``justification`` is required for not_affected (OpenVEX section on
    status).

    ``subcomponents``: it speaks of these parts of the products only; empty: of all of them.
    """

    vulnerability: str
    products: tuple[str, ...]
    status: VexStatus
    justification: str = ""
    impact: str = ""
    author: str = ""
    timestamp: datetime | None = None
    subcomponents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exemption:
    """A local waiver: an accepted violation with an owner, a reason and an end.

    Without approval or past ``expires_at`` it is nothing.

    ``rule`` and/or ``subject`` say what it covers ("" = any, not both empty); ``images`` are repository globs or a
    digest; ``purl`` narrows to one package. ``while_unfixed``, ``while_unexploited``: it was approved of a
    vulnerability without a fix, not known to be exploited, and holds for no other.
    """

    id: str
    owner: str
    justification: str
    expires_at: datetime
    images: tuple[str, ...]
    rule: str = ""
    subject: str = ""
    purl: str = ""
    approved_by: str = ""
    while_unfixed: bool = False
    while_unexploited: bool = False
