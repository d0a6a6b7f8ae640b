"""Decisions: a verdict with its reasons. Never updated, only superseded."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final

from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import Evidence
from scanner.model.reasons import advice
from scanner.model.reference import Digest

STALE = "signature_stale"  # signatures were verified too long ago; a new scan verifies them again
EVIDENCE_STALE = "evidence_stale"  # the evidence is older than the policy allows; a new scan renews it
RESCAN_TELLS = frozenset((STALE, EVIDENCE_STALE))


class Verdict(StrEnum):
    """The worst verdict counts: deny > warn > allow."""

    ALLOW = "allow"
    WARN = "warn"
    DENY = "deny"

    @property
    def rank(self) -> int:
        return _RANKS[self._value_]  # not ``value``, whose look-up takes longer than the rest: all reasons are sorted


_RANKS: Final = {"allow": 0, "warn": 1, "deny": 2}


class ReasonKind(StrEnum):
    """violation: evidence of a problem. incomplete: something is unknown. exempted: a violation that a person accepted.
    satisfied: a requirement that is met, with the evidence; it does not influence the verdict.
    """

    VIOLATION = "violation"
    INCOMPLETE = "incomplete"
    EXEMPTED = "exempted"
    SATISFIED = "satisfied"


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason of a decision.

    ``subject``: vulnerability id, check id or scheme. ``action``: the rule's action.
    """

    rule: str
    kind: ReasonKind
    action: Verdict
    message: str
    subject: str = ""
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""  # what to do, in a sentence
    count: int = 1  # findings that it stands for
    exemption: str = ""  # id of the one that covers it; empty: none
    slug: str = ""  # for incomplete: the Incomplete.reason
    platforms: tuple[str, ...] = ()  # for an index: platforms of the images that it applies to


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revoked engine version, or (by ``digest``) a revoked binary or advisory database."""

    engine: str = ""
    version: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return self.digest or f"{self.engine} {self.version}"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the smallest set of changes that would change the verdict, such as an upgrade of openssl to
    1.1.1n-0+deb11u4.
    """

    action: str  # upgrade, configure, rebuild, sign, examine
    target: str
    detail: str
    resolves: tuple[str, ...] = ()  # rule ids or vulnerability ids

    @property
    def text(self) -> str:
        """The step as a sentence without a full stop: "Upgrade openssl to 1.1.1n-0+deb11u4"."""
        match self.action:
            case "upgrade":
                return f"Upgrade {self.target} {self.detail}"
            case "examine":
                return f"{advice(self.target)} ({self.detail})" if self.detail else advice(self.target)
            case "sign":
                return f"{self.detail[:1].upper()}{self.detail[1:]}"
            case "configure":
                return f"Fix {self.target}: {self.detail}"
            case "replace":
                return f"Remove or replace the cause, or request an exemption: {self.detail}"
            case _:
                return f"{self.action.capitalize()} {self.target}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision.

    ``evidence``: digest of the evidence. ``policy_digest``: digest of the policy document. ``valid_until``: the first
    time at which the same evidence and policy could give another decision (a grace period, an exemption or the allowed
    age of the advisories ends); None: time alone never changes it. ``undecided``: all denying reasons are
    ``incomplete`` (exit code 3 instead of 1).
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    policy: str
    policy_version: int  # 0: the built-in policy
    policy_digest: Digest
    subject: Digest  # the index or manifest that the reference resolved to
    evidence: Digest
    decided_at: datetime
    valid_until: datetime | None = None
    changes: tuple[Change, ...] = ()  # the smallest set that would change the verdict
    images: tuple[tuple[Digest, Verdict], ...] = ()  # children, if the subject is an index
    environment: str = ""

    @property
    def undecided(self) -> bool:
        return is_undecided(self.verdict, self.reasons)


def is_undecided(verdict: Verdict, reasons: Iterable[Reason]) -> bool:
    """Whether a verdict denies only because evidence is missing."""
    denying = [r for r in reasons if r.action is Verdict.DENY and r.kind is not ReasonKind.EXEMPTED]
    return verdict is Verdict.DENY and all(reason.kind is ReasonKind.INCOMPLETE for reason in denying)
