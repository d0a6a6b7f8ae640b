"""Findings and outcomes: what an engine, a check or a verifier can say, and on which evidence.

``Outcome = Passed | Failed | NotApplicable | Incomplete``. What could not be examined is ``Incomplete(reason)``: it
is stored, shown, and never counts as a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Literal

from scanner.model.reference import Digest
from scanner.model.untrusted import clean_text


class Severity(StrEnum):
    """CVSS v3 qualitative ratings, plus ``unknown``. Order: ``rank``."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    @property
    def rank(self) -> int:
        """For sorting and thresholds: an unknown severity counts as critical, because nobody said that it is less."""
        return {"none": 0, "low": 1, "medium": 2, "high": 3, "critical": 4, "unknown": 4}[self.value]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a finding was seen. Every member that is known is given; nothing here ever holds a secret's value."""

    message: str
    layer: Digest | None = None  # diff_id
    layer_index: int | None = None
    path: str = ""
    instruction: str = ""  # the history line that made the layer, as a Dockerfile instruction
    history_index: int | None = None
    pointer: str = ""  # JSON pointer into the image config, manifest or workload document
    line: int | None = None
    certificate: str = ""  # subject or fingerprint
    keyid: str = ""
    name: str = ""  # what it is about where that is no path: an account, a variable, a port, a label, a capability
    amount: float | None = None  # what was measured, where a policy's parameter may set another bound


@dataclass(frozen=True, slots=True)
class Passed:
    """``tolerated``: what was seen and is allowed by the check's own parameters.

    It is kept because a policy may allow less.
    """

    tolerated: tuple[Evidence, ...] = ()
    kind: Literal["passed"] = "passed"


@dataclass(frozen=True, slots=True)
class Failed:
    """At least one piece of evidence. ``severity`` None means the check's own. ``tolerated`` as in ``Passed``."""

    evidence: tuple[Evidence, ...]
    severity: Severity | None = None
    remedy: str = ""  # a remedy for this very image, where the check can say more than its general one
    tolerated: tuple[Evidence, ...] = ()
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class NotApplicable:
    reason: str
    kind: Literal["not-applicable"] = "not-applicable"


@dataclass(frozen=True, slots=True)
class Incomplete:
    """``reason`` is a slug, ``detail`` a sentence for people."""

    reason: str
    detail: str = ""
    kind: Literal["incomplete"] = "incomplete"


# The gaps that say "nothing was recognised here", and nothing against it. A policy may take somebody's SBOM for these;
# whatever else is not known (packages that are there and were missed, a system past its end of life) no SBOM can tell.
NO_PACKAGE = Incomplete("nothing_to_scan", "the engine found no package to look up")
NO_SYSTEM = Incomplete("unsupported_os", "the engine did not recognise an operating system")
ONLY_PROGRAMS = Incomplete("nothing_to_scan", "the image holds programs, but no package that could be looked up")
UNRECOGNISED = frozenset((NO_PACKAGE, NO_SYSTEM, ONLY_PROGRAMS))
PROGRAM_UNREAD = "program_unread"  # the reason of the gap that names a program in which no package could be read


def is_unrecognised(gap: Incomplete) -> bool:
    """Whether the gap is one that a trusted SBOM can fill."""
    return gap in UNRECOGNISED or gap.reason == PROGRAM_UNREAD


Outcome = Passed | Failed | NotApplicable | Incomplete


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check's outcome. ``check`` is its id; title, severity and remedy come from the catalogue by id."""

    check: str
    outcome: Outcome
    severity: Severity = Severity.MEDIUM


@dataclass(frozen=True, slots=True)
class CVSS:
    version: str
    vector: str
    score: float
    source: str = ""


@dataclass(frozen=True, slots=True)
class Component:
    """A package found in the image.

    ``purl`` identifies it; ``type`` is the engine's ecosystem (debian, alpine, python-pkg, jar …).
    """

    purl: str
    name: str
    version: str
    type: str
    source_name: str = ""
    source_version: str = ""
    licenses: tuple[str, ...] = ()
    layer: Digest | None = None  # diff_id
    path: str = ""
    module: str = ""  # the modularity label of an RPM: advisories of a module are for its packages only


# The distribution's word on a vulnerability, each kept apart from the others.
STATUSES = (
    "affected",
    "fixed",
    "under_investigation",
    "will_not_fix",
    "fix_deferred",
    "end_of_life",
    "not_affected",
    "unknown",
)


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """A known vulnerability of one component. ``status`` is one of ``STATUSES``."""

    id: str
    purl: str
    package: str
    installed_version: str
    fixed_versions: tuple[str, ...] = ()
    severity: Severity = Severity.UNKNOWN
    severity_source: str = ""
    aliases: tuple[str, ...] = ()
    cvss: tuple[CVSS, ...] = ()
    cwes: tuple[str, ...] = ()
    status: str = "affected"
    title: str = ""
    description: str = ""
    url: str = ""
    references: tuple[str, ...] = ()
    published: datetime | None = None
    modified: datetime | None = None
    layer: Digest | None = None  # diff_id
    path: str = ""
    engines: tuple[str, ...] = ()  # which engines said so
    known_exploited: bool | None = None  # CISA KEV; None: not looked up
    epss: float | None = None

    @property
    def fixable(self) -> bool:
        return bool(self.fixed_versions)


@dataclass(frozen=True, slots=True)
class SecretMatch:
    """A secret that an engine's content scanner recognised, already redacted."""

    rule: str
    title: str
    severity: Severity
    path: str
    layer: Digest | None = None
    line: int | None = None
    redacted: str = ""


@dataclass(frozen=True, slots=True)
class AdvisoryStatus:
    """The advisory database an answer rests on. ``digest`` is that of its bytes; times are UTC."""

    source: str
    version: str = ""
    updated_at: datetime | None = None  # when its publisher built it
    downloaded_at: datetime | None = None
    next_update: datetime | None = None
    digest: Digest | None = None

    @property
    def id(self) -> str:
        """What scan keys compare: changes when and only when the database does."""
        return f"{self.source}@{self.version}:{self.digest.short if self.digest else 'none'}"


NO_OS = "none"  # as a family: the image has no operating system, which our own reading of it shows


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the engine recognised, so that its silence can be judged.

    ``os_family`` empty: none recognised; ``none``: the image has none, which our own reading of it shows
    (docs/static-images.md).
    """

    os_family: str = ""
    os_version: str = ""
    os_supported: bool | None = None  # False: past its end of life; None: not known
    packages: int = 0
    skipped: tuple[str, ...] = ()
    os_end_of_life: date | None = None  # the last day of its support; None: not known
    without_advisories: tuple[str, ...] = ()  # types of packages that its advisories say nothing about

    @property
    def system(self) -> str:
        """The system as people are told; empty: none was recognised."""
        return "none (static image)" if self.os_family == NO_OS else f"{self.os_family} {self.os_version}".strip()


@dataclass(frozen=True, slots=True)
class Matched:
    """Which engine matched components anew, and when.

    What they are still rests on the engine that looked at the image.
    """

    version: str
    binary: Digest | None
    at: datetime


@dataclass(frozen=True, slots=True)
class EngineReport:
    """An engine's whole answer about one image.

    ``incomplete`` lists why its silence proves nothing; empty: it may be believed.
    """

    engine: str
    version: str
    binary: Digest | None
    advisories: AdvisoryStatus
    coverage: Coverage
    components: tuple[Component, ...] = ()
    vulnerabilities: tuple[Vulnerability, ...] = ()
    secrets: tuple[SecretMatch, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()
    isolation: str = ""  # how the engine's process was confined, e.g. "netns,rlimits"
    feeds: tuple[AdvisoryStatus, ...] = ()  # KEV and EPSS, where they were asked: ``source`` says which
    matched: Matched | None = None  # its components were matched with newer advisories since, without the image


class TrustStatus(StrEnum):
    """Three different answers that must never be mixed, and a fourth for an unchecked scheme."""

    VERIFIED = "verified"
    NOT_SIGNED = "not-signed"
    REFUSED = "refused"  # there is a signature and it is not acceptable
    UNKNOWN = "unknown"  # could not be told: server down, TLS, not configured


@dataclass(frozen=True, slots=True)
class Signer:
    name: str = ""  # role, identity or certificate subject
    keyid: str = ""
    role: str = ""
    issuer: str = ""
    expires: datetime | None = None

    def describe(self) -> str:
        """As people are told: ``alice (key 1234abcd…, role targets/alice, until 2029-11-22)``."""
        facts = (
            f"key {self.keyid[:16]}" if self.keyid else "",
            f"role {self.role}" if self.name and self.role else "",
            f"issued by {self.issuer}" if self.issuer else "",
            f"until {self.expires:%Y-%m-%d}" if self.expires else "",
        )
        told = ", ".join(filter(None, facts))
        return clean_text(f"{self.name or self.role or 'whoever holds the key'}" + (f" ({told})" if told else ""), 400)


@dataclass(frozen=True, slots=True)
class Verification:
    """A scheme's answer about one digest. ``reason`` is a slug when not verified."""

    scheme: str
    status: TrustStatus
    digest: Digest | None = None
    reason: str = ""
    detail: str = ""
    signers: tuple[Signer, ...] = ()
    role: str = ""
    trust: str = ""  # the named trust root that was used
    predicate_type: str = ""  # for attestations; empty: a signature
    predicate: tuple[tuple[str, str], ...] = ()  # the attestation's scalars by dotted path, top ones first
    expiries: tuple[tuple[str, datetime], ...] = ()  # when each part that it rests on ends: role, certificate, document
    predicate_cut: bool = False  # it has more of them: what is not there is not known to be missing
    checked_at: datetime | None = None
    notes: tuple[str, ...] = field(default=())
