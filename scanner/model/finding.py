"""Findings and outcomes of engines, checks and verifiers, with their evidence.

``Outcome = Passed | Failed | NotApplicable | Incomplete``. Anything that could not be examined is
``Incomplete(reason)``. It is stored and shown, and never counts as passed.
"""

from __future__ import annotations

from dataclasses import field
from datetime import date, datetime
from enum import StrEnum
from typing import Final, Literal

from scanner.lazy_dataclasses import dataclass
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
        """For sorting and thresholds. Unknown counts as critical, because no source rated it lower."""
        return _RANKS[self._value_]


_RANKS: Final = {"none": 0, "low": 1, "medium": 2, "high": 3, "critical": 4, "unknown": 4}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a finding was seen. All known members are set. A secret's value is never stored here."""

    message: str  # without a secret's value
    layer: Digest | None = None  # diff_id
    layer_index: int | None = None  # from 0, base first
    path: str = ""  # without a leading slash
    instruction: str = ""  # the history line that created the layer, as a Dockerfile instruction
    history_index: int | None = None  # from 0
    pointer: str = ""  # JSON pointer into the image config, manifest or workload document
    line: int | None = None  # from 1
    certificate: str = ""  # subject or fingerprint
    keyid: str = ""
    name: str = ""  # the subject if it is not a path: an account, variable, port, label or capability
    amount: float | None = None  # the measured value, if a policy parameter can set another limit

    def __post_init__(self) -> None:
        # A check may count: 3 and 3.0 are one amount, but two texts in JSON, and evidence is known by its digest.
        if self.amount is not None:
            object.__setattr__(self, "amount", float(self.amount))


@dataclass(frozen=True, slots=True)
class Passed:
    """``tolerated``: findings that the check's own parameters allow. Kept, because a policy may allow less."""

    tolerated: tuple[Evidence, ...] = ()
    kind: Literal["passed"] = "passed"


@dataclass(frozen=True, slots=True)
class Failed:
    """At least one piece of evidence. ``severity`` None: the check's own. ``tolerated``: see ``Passed``."""

    evidence: tuple[Evidence, ...]
    severity: Severity | None = None
    remedy: str = ""  # a remedy for this image, if the check knows more than its general one
    tolerated: tuple[Evidence, ...] = ()
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class NotApplicable:
    reason: str
    kind: Literal["not-applicable"] = "not-applicable"


@dataclass(frozen=True, slots=True)
class Incomplete:
    """``reason``: a slug. ``detail``: a sentence for users."""

    reason: str
    detail: str = ""
    kind: Literal["incomplete"] = "incomplete"


# Gaps that mean "nothing was recognised". A policy may accept a trusted SBOM for these. Other gaps (packages that were
# missed, a system past its end of life) cannot be filled by an SBOM.
NO_PACKAGE = Incomplete("nothing_to_scan", "the engine found no package to look up")
NO_SYSTEM = Incomplete("unsupported_os", "the engine did not recognise an operating system")
ONLY_PROGRAMS = Incomplete("nothing_to_scan", "the image contains programs, but no package that could be looked up")
# Reasons that make an image unknown, however many packages were found.
UNRECOGNISED = frozenset((NO_PACKAGE, NO_SYSTEM, ONLY_PROGRAMS))
PROGRAM_UNREAD = "program_unread"  # reason of a gap: no package could be read in a program
PACKAGE_UNREAD = "package_unread"  # reason of a gap: a package that the image lists was not looked up


def is_unrecognised(gap: Incomplete) -> bool:
    """True if a trusted SBOM can fill the gap."""
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
    version: str  # of CVSS: 2.0, 3.1, 4.0
    vector: str
    score: float  # the base score, 0 to 10
    source: str = ""  # who scored it: a distribution, NVD, GitHub


@dataclass(frozen=True, slots=True)
class Component:
    """A package found in the image.

    ``purl`` identifies it. ``type``: the ecosystem (debian, alpine, python-pkg, jar …). ``stated``: an SBOM file in the
    image names it; nobody read it from the file at ``path``.
    """

    purl: str
    name: str
    version: str
    type: str
    source_name: str = ""  # distributions publish advisories by source package; empty: the same name
    source_version: str = ""
    licenses: tuple[str, ...] = ()  # SPDX ids, or the package's own texts
    layer: Digest | None = None  # diff_id
    path: str = ""
    module: str = ""  # the modularity label of an RPM: a module's advisories apply to its packages only
    stated: bool = False


# A distribution's statements about a vulnerability, as they are; none is merged with another.
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

    id: str  # CVE if there is one, else the advisory's own
    purl: str
    package: str
    installed_version: str
    fixed_versions: tuple[str, ...] = ()  # empty: no fix is known, which is not the same as none exists
    severity: Severity = Severity.UNKNOWN
    severity_source: str = ""  # whose rating ``severity`` is
    aliases: tuple[str, ...] = ()
    cvss: tuple[CVSS, ...] = ()
    cwes: tuple[str, ...] = ()
    status: str = "affected"
    title: str = ""
    description: str = ""
    url: str = ""
    references: tuple[str, ...] = ()
    published: datetime | None = None  # None: the advisory does not say
    modified: datetime | None = None
    layer: Digest | None = None  # diff_id
    path: str = ""  # of the file that lists the package; empty: the system's package database
    engines: tuple[str, ...] = ()  # engines that reported it
    known_exploited: bool | None = None  # CISA KEV; None: not looked up
    epss: float | None = None  # 0 to 1; None: not looked up

    @property
    def fixable(self) -> bool:
        return bool(self.fixed_versions)


@dataclass(frozen=True, slots=True)
class SecretMatch:
    """A secret that an engine found by content, already redacted."""

    rule: str  # id in the engine
    title: str
    severity: Severity
    path: str
    layer: Digest | None = None  # diff_id
    line: int | None = None  # from 1
    redacted: str = ""


@dataclass(frozen=True, slots=True)
class AdvisoryStatus:
    """The advisory database of a report. ``digest``: of its content. Times are UTC."""

    source: str
    version: str = ""  # of the data, as its publisher counts
    updated_at: datetime | None = None  # when its publisher built it
    downloaded_at: datetime | None = None
    next_update: datetime | None = None  # None: the publisher announces none
    digest: Digest | None = None

    @property
    def id(self) -> str:
        """Identifier for scan keys: it changes if and only if the database changes."""
        return f"{self.source}@{self.version}:{self.digest.short if self.digest else 'none'}"


NO_OS = "none"  # os_family of an image without an operating system, by our own examination


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the engine recognised, to judge whether its report can be complete.

    ``os_family``: empty if none was recognised; ``none`` if our own examination shows that the image has none
    (docs/static-images.md).
    """

    os_family: str = ""
    os_version: str = ""
    os_supported: bool | None = None  # False: past its end of life; None: not known
    packages: int = 0  # how many the engine found; 0 is suspicious, and checked
    skipped: tuple[str, ...] = ()  # what the engine left out, and why
    os_end_of_life: date | None = None  # the last day of its support; None: unknown
    without_advisories: tuple[str, ...] = ()  # package types without advisories

    @property
    def system(self) -> str:
        """The system for display. Empty if none was recognised."""
        return "none (static image)" if self.os_family == NO_OS else f"{self.os_family} {self.os_version}".strip()


@dataclass(frozen=True, slots=True)
class Matched:
    """The engine that matched the components again, and when. The components are still those of the original scan.

    What they are still rests on the engine that looked at the image.
    """

    version: str
    binary: Digest | None
    at: datetime


@dataclass(frozen=True, slots=True)
class EngineReport:
    """The whole report of an engine about one image.

    ``incomplete``: why missing findings prove nothing; empty if the report is complete.
    """

    engine: str
    version: str
    binary: Digest | None  # digest of the program that ran, for revocations
    advisories: AdvisoryStatus
    coverage: Coverage
    components: tuple[Component, ...] = ()
    vulnerabilities: tuple[Vulnerability, ...] = ()
    secrets: tuple[SecretMatch, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()
    isolation: str = ""  # how the engine's process was confined, e.g. "netns,rlimits"
    feeds: tuple[AdvisoryStatus, ...] = ()  # status of KEV and EPSS, if they were used; see ``source``
    matched: Matched | None = None  # set if the components were matched with newer advisories later, without the image


class TrustStatus(StrEnum):
    """Four different answers that must not be mixed. ``UNKNOWN`` is never "not signed"."""

    VERIFIED = "verified"
    NOT_SIGNED = "not-signed"
    REFUSED = "refused"  # there is a signature, but it is not accepted
    UNKNOWN = "unknown"  # server down, TLS error, not configured


@dataclass(frozen=True, slots=True)
class Signer:
    name: str = ""  # role, identity or certificate subject
    keyid: str = ""  # empty: a certificate without one
    role: str = ""  # TUF role; empty: none
    issuer: str = ""  # of the certificate, or the identity provider; empty: a bare key
    expires: datetime | None = None  # None: it does not expire, or the scheme does not say

    def describe(self) -> str:
        """The signer for users: ``alice (key 1234abcd…, role targets/alice, until 2029-11-22)``."""
        facts = (
            f"key {self.keyid[:16]}" if self.keyid else "",
            f"role {self.role}" if self.name and self.role else "",
            f"issued by {self.issuer}" if self.issuer else "",
            f"until {self.expires:%Y-%m-%d}" if self.expires else "",
        )
        details = ", ".join(filter(None, facts))
        return clean_text(f"{self.name or self.role or 'unnamed signer'}" + (f" ({details})" if details else ""), 400)


@dataclass(frozen=True, slots=True)
class Verification:
    """A scheme's answer about one digest. ``reason``: a slug, unless verified."""

    scheme: str
    status: TrustStatus
    digest: Digest | None = None
    reason: str = ""
    detail: str = ""  # a sentence for users
    signers: tuple[Signer, ...] = ()
    role: str = ""
    trust: str = ""  # the named trust root that was used
    predicate_type: str = ""  # for attestations; empty: a signature
    predicate: tuple[tuple[str, str], ...] = ()  # the attestation's scalars by dotted path, nearest to the root first
    expiries: tuple[tuple[str, datetime], ...] = ()  # expiry of each role, certificate and document used
    predicate_cut: bool = False  # fields were left out, so a missing one may exist
    checked_at: datetime | None = None  # None: an answer from before this was recorded
    notes: tuple[str, ...] = field(default=())
