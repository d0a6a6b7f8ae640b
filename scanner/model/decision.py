"""Decisions: a verdict with its reasons. Never updated, only superseded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scanner.model.finding import Evidence
from scanner.model.reference import Digest

STALE = "signature_stale"  # the slug of signatures that were verified too long ago: a new scan would tell
EVIDENCE_STALE = "evidence_stale"  # the slug of evidence that is older than the policy allows: a new scan would tell
RESCAN_TELLS = frozenset((STALE, EVIDENCE_STALE))


class Verdict(StrEnum):
    """``worst`` of two verdicts is what counts: deny > warn > allow."""

    ALLOW = "allow"
    WARN = "warn"
    DENY = "deny"

    @property
    def rank(self) -> int:
        return {"allow": 0, "warn": 1, "deny": 2}[self.value]


class ReasonKind(StrEnum):
    """violation: positive evidence of harm. incomplete: we do not know. exempted: a violation that a person
    accepted. satisfied: what a rule demands is there, and who says so; it speaks for the image and decides
    nothing.
    """

    VIOLATION = "violation"
    INCOMPLETE = "incomplete"
    EXEMPTED = "exempted"
    SATISFIED = "satisfied"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a decision is what it is.

    ``subject`` is the vulnerability id, check id or scheme; ``action`` what the rule does.
    """

    rule: str
    kind: ReasonKind
    action: Verdict
    message: str
    subject: str = ""
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""
    count: int = 1
    exemption: str = ""
    slug: str = ""  # for incomplete: the Incomplete.reason
    platforms: tuple[str, ...] = ()  # of an index: those of the images that it holds for


@dataclass(frozen=True, slots=True)
class Revoked:
    """What must not be believed: an engine's version, or by ``digest`` one binary or one advisory database."""

    engine: str = ""
    version: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return self.digest or f"{self.engine} {self.version}"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the smallest set of changes that would flip the decision: e.g. upgrade openssl to
    1.1.1n-0+deb11u4.
    """

    action: str  # upgrade, configure, rebuild, sign, examine
    target: str
    detail: str
    resolves: tuple[str, ...] = ()  # rule ids or vulnerability ids


@dataclass(frozen=True, slots=True)
class Decision:
    """``evidence`` is the digest of the evidence it rests on, ``policy_digest`` that of the policy document's bytes.

    ``valid_until``: the first moment at which the same evidence and policy could be decided otherwise (a grace ends, an
    exemption or the advisory database's allowed age expires); None: never by time alone.
    ``undecided`` is True when every reason that denies is ``incomplete``: the CLI's exit 3 instead of 1.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    policy: str
    policy_version: int
    policy_digest: Digest
    subject: Digest
    evidence: Digest
    decided_at: datetime
    valid_until: datetime | None = None
    changes: tuple[Change, ...] = ()
    images: tuple[tuple[Digest, Verdict], ...] = ()  # children, where the subject is an index
    environment: str = ""

    @property
    def undecided(self) -> bool:
        denying = [
            reason
            for reason in self.reasons
            if reason.action is Verdict.DENY and reason.kind is not ReasonKind.EXEMPTED
        ]
        return self.verdict is Verdict.DENY and all(reason.kind is ReasonKind.INCOMPLETE for reason in denying)
